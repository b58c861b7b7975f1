package upgrader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidFile is a PID file on its way: what it will be is written beside it, while
// there is time for that, and takes its place by rename(2) at the moment at which
// it becomes true. A reader sees the old content or the new, never a part.
type pidFile struct {
	path, staged string
	err          error // of staging
	done         chan struct{}
}

// stagePIDFile begins to write what path will be: this process's pid. publish or
// discard end what it began.
func stagePIDFile(path string) *pidFile {
	// One name for all attempts, so that one that was killed leaves one file at most.
	staged := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	p := &pidFile{path: path, staged: staged, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if err := p.write(); err != nil {
			p.err = fmt.Errorf("PID file %s: %w", path, err)
		}
	}()
	return p
}

func (p *pidFile) write() error {
	if err := os.Remove(p.staged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Exclusively: nobody is to put a link there.
	f, err := os.OpenFile(p.staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	return errors.Join(err, f.Chmod(0o644), f.Close()) // whatever the umask is
}

// ready waits until the file is written, and says whether it could be.
func (p *pidFile) ready() error {
	if p == nil {
		return nil
	}
	<-p.done
	return p.err
}

// publish puts the file in its place.
func (p *pidFile) publish() error {
	if p == nil {
		return nil
	}
	err := p.ready()
	if err == nil {
		err = os.Rename(p.staged, p.path)
	}
	return err
}

// discard removes what was not published.
func (p *pidFile) discard() {
	if p.ready() == nil && p != nil {
		_ = os.Remove(p.staged)
	}
}

// removePIDFile removes the file if it still names this process.
func removePIDFile(path string) {
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return // somebody has put it there, and to read a pipe would take for ever
	}
	b, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid()) {
		os.Remove(path)
	}
}

// checkPIDFile finds out early what would fail late.
func checkPIDFile(path string) error {
	dir := filepath.Dir(path)
	switch st, err := os.Stat(dir); {
	case err != nil:
		return fmt.Errorf("PID file %s: %w", path, err)
	case !st.IsDir():
		return fmt.Errorf("PID file %s: %s is not a directory", path, dir)
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("PID file %s: exists and is no regular file", path)
	}
	return nil
}
