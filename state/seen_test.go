package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// broken is a watcher that watches nothing.
func broken(t *testing.T) *fsnotify.Watcher {
	t.Helper()
	w, err := fsnotify.NewWatcher()
	must(t, err, w.Close())
	return w
}

// until looks again and again: nobody tells what a worker has in its memory.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}
