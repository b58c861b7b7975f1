package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
	name, log := filepath.Join(dir, "file"), filepath.Join(dir, "log")
	must(t, write(name, "one"), write(log, ""))
	s, other := watchFiles(t, File(name), 0), watchFiles(t, File(log), 0)
	s.content("one")
	n := len(s.all())
	for i := range 20 {
		must(t, write(log, fmt.Sprint(i)))
		other.content(fmt.Sprint(i))
	}
	if got := len(s.all()); got != n {
		t.Errorf("%d looks for nothing", got-n)
	}
	must(t, put(name, "two"))
	s.content("two")
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
