package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// seen is what a source has reported.
type seen struct {
	t    *testing.T
	mu   sync.Mutex
	list []Found
	more chan struct{}
	stop func()
}

// watchFiles watches until the test's end, or stop. What the kernel does not tell of is
// noticed every so often; 0 is an hour, in which a test that waits for it fails.
func watchFiles(t *testing.T, src Source, every time.Duration) *seen {
	t.Helper()
	if every == 0 {
		every = time.Hour
	}
	for inner := src; inner != nil; {
		switch s := inner.(type) {
		case *filter:
			inner = s.src
		case *files:
			s.every = every
			inner = nil
		}
	}
	s := &seen{t: t, more: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := src.Watch(ctx, func(f Found) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.list = append(s.list, f)
			close(s.more)
			s.more = make(chan struct{})
		})
		if err != nil {
			t.Error(err)
		}
	})
	s.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(s.stop)
	return s
}

// until waits until what was seen last is ok.
func (s *seen) until(what string, ok func(Found) bool) Found {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		var last Found
		if n := len(s.list); n > 0 {
			last = s.list[n-1]
		}
		more := s.more
		s.mu.Unlock()
		if (last.Value != nil || last.Err != nil) && ok(last) {
			return last
		}
		select {
		case <-more:
		case <-deadline:
			s.t.Fatalf("%s is not seen; the last is %.200s, %v", what, last.Value, last.Err)
		}
	}
}

func (s *seen) all() []Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

func (s *seen) content(want string) Found {
	s.t.Helper()
	return s.until(want, func(f Found) bool {
		switch v := f.Value.(type) {
		case []byte:
			return f.Err == nil && string(v) == want
		case json.RawMessage:
			return f.Err == nil && string(v) == want
		case map[string][]byte:
			var b strings.Builder
			for _, name := range []string{"a", "b"} {
				if c, ok := v[name]; ok {
					fmt.Fprintf(&b, "%s=%s ", name, c)
				}
			}
			return f.Err == nil && strings.TrimSpace(b.String()) == want
		}
		return false
	})
}

func (s *seen) fails(want error) {
	s.t.Helper()
	s.until(want.Error(), func(f Found) bool { return errors.Is(f.Err, want) })
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(name, content string) error { return os.WriteFile(name, []byte(content), 0o644) }

// put replaces a file as one should.
func put(name, content string) error {
	tmp := name + ".tmp"
	if err := write(tmp, content); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// swap is what Kubernetes does to a volume: a new directory, and a link to it that takes
// the place of the old one.
func swap(dir, version string, content map[string]string) error {
	sub := "..v" + version
	err := os.Mkdir(filepath.Join(dir, sub), 0o755)
	for name, c := range content {
		err = errors.Join(err, write(filepath.Join(dir, sub, name), c))
		if _, serr := os.Lstat(filepath.Join(dir, name)); serr != nil {
			err = errors.Join(err, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	tmp, data := filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	err = errors.Join(err, os.Symlink(sub, tmp), os.Rename(tmp, data))
	if old != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, old)))
	}
	return err
}

// TestFile: everything that can happen to a file is seen.
func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "sub", "file")
	s := watchFiles(t, File(name), 0)
	s.fails(fs.ErrNotExist)
	must(t, os.Mkdir(filepath.Dir(name), 0o755), write(name, "one"))
	one := s.content("one")
	must(t, put(name, "two"))
	s.content("two")
	must(t, put(name, "one"))
	if again := s.content("one"); again.Version != one.Version {
		t.Errorf("version %q, and then %q, of the same", one.Version, again.Version)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	for _, more := range []string{", and", " more"} {
		_, err = f.WriteString(more)
		must(t, err)
	}
	s.content("one, and more")
	must(t, f.Close(), os.Remove(name))
	s.fails(fs.ErrNotExist)
	must(t, write(name, "back"))
	s.content("back")
	must(t, os.RemoveAll(filepath.Dir(name)))
	s.fails(fs.ErrNotExist)
	must(t, os.Mkdir(filepath.Dir(name), 0o755), write(name, "all new"))
	s.content("all new")
	// The directory is another by now.
	must(t, os.Mkdir(filepath.Join(dir, "other"), 0o755), write(filepath.Join(dir, "other", "file"), "of the other"),
		os.Rename(filepath.Join(dir, "sub"), filepath.Join(dir, "was")), os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "sub")))
	s.content("of the other")
	must(t, put(name, "as ever"))
	s.content("as ever")
	// What is no file.
	must(t, os.Remove(name), syscall.Mkfifo(name, 0o600))
	s.until("a pipe", func(f Found) bool { return f.Err != nil && strings.Contains(f.Err.Error(), "not a regular file") })
	must(t, os.Remove(name), os.Mkdir(name, 0o755))
	s.until("a directory", func(f Found) bool { return f.Err != nil && strings.Contains(f.Err.Error(), "not a regular file: d") })
	must(t, os.Remove(name), write(name, strings.Repeat("x", MaxValue+1)))
	s.until("a large file", func(f Found) bool { return f.Err != nil && strings.Contains(f.Err.Error(), "more than") })
	must(t, put(name, ""))
	s.content("")
}

// TestReplaceStorm: whatever comes meanwhile, of a hundred replacements, one after the other
// or as fast as can be, the last is seen, and nothing that never was.
func TestReplaceStorm(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	body := func(i int) string { return strings.Repeat(fmt.Sprintf("%06d ", i), 1000) }
	must(t, write(name, body(0)))
	s := watchFiles(t, File(name), 0)
	for i := range 100 {
		must(t, put(name, body(i)))
		s.content(body(i))
	}
	for round := range 3 {
		last := 0
		for end := time.Now().Add(2 * longest); time.Now().Before(end); last++ {
			must(t, put(name, body(1000*round+last)))
		}
		must(t, put(name, fmt.Sprint("last ", round)))
		s.content(fmt.Sprint("last ", round))
	}
	for _, f := range s.all() {
		if errors.Is(f.Err, errUnsteady) {
			continue
		}
		if b, ok := f.Value.([]byte); !ok || len(b) > 7 && !bytes.Equal(b, bytes.Repeat(b[:7], 1000)) {
			t.Errorf("%.20q, %v", f.Value, f.Err)
		}
	}
	n := len(s.all())
	if n < 100+3*2 || n > 250 {
		t.Errorf("%d looks", n)
	}
}

// TestNeighbours: what happens to other files is not looked at.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	must(t, write(name, "one"))
	s := watchFiles(t, File(name), 0)
	s.content("one")
	n := len(s.all())
	for i := range 100 {
		must(t, write(filepath.Join(dir, "log"), fmt.Sprint(i)))
	}
	must(t, put(name, "two"))
	s.content("two")
	if got := len(s.all()); got > n+3 {
		t.Errorf("%d looks for one change", got-n)
	}
}

// TestHalfJSON: a file that is written in place, slowly, is JSON or a failure, at any time.
func TestHalfJSON(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	must(t, write(name, `{"n":0}`))
	s := watchFiles(t, JSON(File(name)), 0)
	s.content(`{"n":0}`)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(`{"n":`)
	must(t, err)
	s.until("a half", func(f Found) bool { return f.Err != nil && strings.Contains(f.Err.Error(), "it is not JSON") })
	_, err = f.WriteString(`1}`)
	must(t, err)
	s.content(`{"n":1}`)
	for _, f := range s.all() {
		if f.Err == nil && !json.Valid(f.Value.(json.RawMessage)) {
			t.Errorf("%q", f.Value)
		}
	}
}

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

// TestUntold: what the kernel does not tell of is seen all the same, later.
func TestUntold(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	name := filepath.Join(dir, "file")
	must(t, write(name, "one"), os.Link(name, filepath.Join(other, "file")))
	s := watchFiles(t, File(name), 20*time.Millisecond)
	s.content("one")
	must(t, write(filepath.Join(other, "file"), "two")) // by a name in a directory that is not watched
	s.content("two")
	at := s.content("two").At
	s.until("a confirmation", func(f Found) bool { return f.Err == nil && f.At.After(at) })
}

// TestBlind: without inotify files are looked at every second.
func TestBlind(t *testing.T) {
	dir := t.TempDir()
	for _, w := range []*watches{{}, {Watcher: broken(t)}} {
		w.known = map[string]os.FileInfo{}
		f := &files{path: filepath.Join(dir, "file")}
		if found := f.look(w); !errors.Is(found.Err, fs.ErrNotExist) || !w.blind {
			t.Errorf("%+v, blind is %v", found, w.blind)
		}
	}
}

// TestFileLeaves: what was opened is closed, and nothing goes on.
func TestFileLeaves(t *testing.T) {
	dir := t.TempDir()
	must(t, write(filepath.Join(dir, "a"), "1"))
	before := descriptors()
	for range 10 {
		one, all := watchFiles(t, File(filepath.Join(dir, "a")), 0), watchFiles(t, Dir(dir), 0)
		one.content("1")
		all.content("a=1")
		must(t, put(filepath.Join(dir, "a"), "2"))
		one.content("2")
		must(t, write(filepath.Join(dir, "a"), "1"))
		one.content("1")
		one.stop()
		all.stop()
	}
	if after := descriptors(); len(after) > len(before) {
		t.Errorf("descriptors leaked:\nbefore %v\nafter %v", before, after)
	}
}

// broken is a watcher that watches nothing.
func broken(t *testing.T) *fsnotify.Watcher {
	t.Helper()
	w, err := fsnotify.NewWatcher()
	must(t, err, w.Close())
	return w
}
