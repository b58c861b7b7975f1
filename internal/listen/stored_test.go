package listen

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// boundUnix is a unix socket that listens at path.
func boundUnix(t *testing.T, path string) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestStored: a socket that a supervisor has kept is taken for the very one that it was,
// or for another name of its address, as long as somebody can come to it.
func TestStored(t *testing.T) {
	dir, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	spec := Spec{"http", "unix", path}
	other, moved := Spec{"web", "unix", path}, Spec{"http", "unix", path + "2"}
	fd := boundUnix(t, path)
	kept := func() *Passed { return &Passed{{spec.StoreName(), fd}} }
	for i, c := range []struct {
		stored, socket Spec
		want, wantNew  int // descriptors
	}{
		{spec, spec, fd, fd},
		{other, other, -1, fd},
		{moved, moved, -1, -1},
	} {
		if got := kept().Stored(c.stored); got != c.want {
			t.Errorf("%d: stored %d, want %d", i, got, c.want)
		}
		if got, bound, err := kept().Socket(c.socket); got != c.wantNew || bound != (got >= 0) || err != nil {
			t.Errorf("%d: socket %d, bound %v, %v, want %d", i, got, bound, err, c.wantNew)
		}
	}
	// Its directory was made anew.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := kept().Stored(spec); got >= 0 {
		t.Error("it is taken, and nobody can come to it")
	}
	if got, _, err := kept().Socket(other); got >= 0 || err != nil {
		t.Errorf("by its address it is taken, and nobody can come to it: %v", err)
	}
	// One that systemd has bound is its own to see to.
	if got, bound, err := (&Passed{{"http", fd}}).Socket(spec); got != fd || bound || err != nil {
		t.Errorf("%d, %v, %v", got, bound, err)
	}
}
