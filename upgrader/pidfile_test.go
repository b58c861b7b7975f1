//go:build unix

package upgrader

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// TestPIDFileOfOthers: in a directory where others can put things, the PID file is written through
// no link of theirs, and nobody waits for them.
func TestPIDFileOfOthers(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "pid"), filepath.Join(dir, "victim")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(victim, []byte("mine"), 0o600), os.Symlink(victim, path), os.Symlink(victim, filepath.Join(dir, ".pid.next")))
	p := stagePIDFile(path)
	must(p.publish())
	if b, err := os.ReadFile(victim); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	st, err := os.Lstat(path)
	if b, rerr := os.ReadFile(path); err != nil || rerr != nil || !st.Mode().IsRegular() || string(b) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("%v, %q, %v", st.Mode(), b, errors.Join(err, rerr))
	}
	// A pipe in its place would never be read to its end.
	must(os.Remove(path), syscall.Mkfifo(path, 0o600))
	removePIDFile(path)
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	must(os.Remove(path), os.Symlink(victim, path), os.WriteFile(victim, []byte(strconv.Itoa(os.Getpid())), 0o600))
	removePIDFile(path)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		t.Error("a link is removed that is somebody else's")
	}
}
