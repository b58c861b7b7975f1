package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestKubernetes: a volume is swapped as a whole. A file that leads there, and the
// directory, follow; of the directory no two files are of different versions.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(i int) map[string]string {
		v := strings.Repeat(fmt.Sprint(i, "."), 2000)
		return map[string]string{"a": v, "b": v}
	}
	must(t, swap(dir, "0", version(0)))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(filepath.Join(dir, "a"), link))
	file, all, far := watchFiles(t, File(filepath.Join(dir, "a")), 0), watchFiles(t, Dir(dir), 0), watchFiles(t, File(link), 0)
	follows := func(i int) {
		t.Helper()
		v := version(i)["a"]
		file.content(v)
		far.content(v)
		all.content("a=" + v + " b=" + v)
	}
	follows(0)
	for i := 1; i <= 20; i++ {
		must(t, swap(dir, fmt.Sprint(i), version(i)))
		follows(i)
	}
	i := 20
	for end := time.Now().Add(2 * longest); time.Now().Before(end); {
		i++
		must(t, swap(dir, fmt.Sprint(i), version(i)))
	}
	follows(i)
	// In the directory behind the link.
	v := version(1000)
	must(t, write(filepath.Join(dir, "..data", "a"), v["a"]), write(filepath.Join(dir, "..data", "b"), v["b"]))
	follows(1000)
	for _, f := range all.all() {
		if v, ok := f.Value.(map[string][]byte); f.Err == nil && (!ok || len(v) != 2 || string(v["a"]) != string(v["b"]) && string(v["a"]) != version(1000)["a"]) {
			t.Errorf("%.40s", v)
		}
	}
	// The link itself leads elsewhere.
	must(t, write(link+".2", "elsewhere"), os.Symlink(link+".2", link+".new"), os.Rename(link+".new", link))
	far.content("elsewhere")
	// A circle.
	must(t, os.Symlink(link, link+".new"), os.Rename(link+".new", link))
	far.until("a circle", func(f Found) bool { return f.Err != nil })
	must(t, put(link, "out of it"))
	far.content("out of it")
}

// TestDir: files come, go and change, and what does not count does not.
func TestDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dir")
	s := watchFiles(t, Dir(dir), 0)
	s.fails(fs.ErrNotExist)
	must(t, os.Mkdir(dir, 0o755))
	empty := s.content("")
	must(t, write(filepath.Join(dir, "a"), "1"), write(filepath.Join(dir, ".hidden"), "x"), os.Mkdir(filepath.Join(dir, "c"), 0o755))
	a := s.content("a=1")
	must(t, put(filepath.Join(dir, "b"), "2"))
	s.content("a=1 b=2")
	must(t, os.Remove(filepath.Join(dir, "b")), os.Symlink("nowhere", filepath.Join(dir, "d")))
	if again := s.content("a=1"); again.Version != a.Version || a.Version == empty.Version {
		t.Errorf("version %q, and then %q, of the same", a.Version, again.Version)
	}
	must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	if b := s.content("b=1"); b.Version == a.Version {
		t.Error("the name does not count")
	}
	must(t, os.Rename(dir, dir+".was"))
	s.fails(fs.ErrNotExist)
	must(t, os.Rename(dir+".was", dir))
	s.content("b=1")
	must(t, write(filepath.Join(dir, "a"), strings.Repeat("x", MaxValue)))
	s.until("much", func(f Found) bool { return f.Err != nil && strings.Contains(f.Err.Error(), "more than") })
	must(t, os.RemoveAll(dir), write(dir, "no directory"))
	s.until("a file", func(f Found) bool { return errors.Is(f.Err, syscall.ENOTDIR) })
	must(t, os.Remove(dir), os.Mkdir(dir, 0o755))
	for i := range maxFiles + 1 {
		must(t, write(filepath.Join(dir, fmt.Sprint(i)), ""))
	}
	s.until("many", func(f Found) bool { return f.Err != nil && strings.Contains(f.Err.Error(), "files") })
}

// TestWatches: only the places on the way are watched, those of now.
func TestWatches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	n, err := fsnotify.NewWatcher()
	must(t, err)
	defer n.Close()
	w := &watches{Watcher: n, known: map[string]os.FileInfo{}}
	f := &files{path: filepath.Join(link, "file")}
	for _, c := range []struct {
		do   func() error
		want []string
	}{
		{func() error { return nil }, []string{""}},
		{func() error { return errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o755), os.Symlink("a", link)) }, []string{"", "/a"}},
		{func() error { return write(filepath.Join(dir, "a", "file"), "1") }, []string{"", "/a"}},
		{func() error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "b"), 0o755), os.Mkdir(filepath.Join(dir, "c"), 0o755),
				os.Remove(link), os.Symlink(dir+"/c/../b", link))
		}, []string{"", "/b"}},
		{func() error { return os.Remove(link) }, []string{""}},
		{func() error { return os.RemoveAll(dir) }, []string{"/.."}},
	} {
		must(t, c.do())
		f.look(w)
		var want []string
		for _, name := range c.want {
			want = append(want, filepath.Clean(dir+name))
		}
		got := n.WatchList()
		slices.Sort(got)
		if !slices.Equal(got, want) || len(w.known) != len(want) || w.blind {
			t.Errorf("watched are %v, not %v; known %d, blind %v", got, want, len(w.known), w.blind)
		}
	}
}

// TestWatchedAnew: another directory at the same path is watched, also if the kernel has told
// nothing, and if it has the number of the one before.
func TestWatchedAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sub := filepath.Join(dir, "p", "sub")
	must(t, os.MkdirAll(sub, 0o755))
	n, err := fsnotify.NewWatcher()
	must(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer n.Close()
	heard := make(chan string, 1000)
	wg.Go(func() {
		for ev := range n.Events {
			heard <- ev.Name
		}
	})
	w := &watches{Watcher: n, known: map[string]os.FileInfo{}}
	f := &files{path: filepath.Join(sub, "file")}
	hears := func(content string) {
		t.Helper()
		f.look(w)
		must(t, write(f.path, content))
		select {
		case <-heard:
		case <-time.After(patience):
			t.Fatal("nothing is heard")
		}
		for ; ; <-time.After(time.Millisecond) { // until no more comes of that
			if len(heard) == 0 {
				break
			}
			for len(heard) > 0 {
				<-heard
			}
		}
	}
	hears("1")
	must(t, os.Rename(filepath.Dir(sub), filepath.Join(dir, "q")), os.MkdirAll(sub, 0o755))
	hears("2")
	must(t, os.RemoveAll(sub))
	until(t, "the watch to be gone", func() bool { return !slices.Contains(n.WatchList(), sub) })
	must(t, os.Mkdir(sub, 0o755))
	for len(heard) > 0 {
		<-heard
	}
	is, err := os.Stat(sub)
	must(t, err)
	w.known[sub] = is
	hears("3")
}
