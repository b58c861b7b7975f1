//go:build linux || darwin || freebsd

package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type msg struct {
	Cmd  string `json:"cmd,omitempty"`
	From int    `json:"from"`
	N    int    `json:"n"`
	Pad  string `json:"pad,omitempty"`
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// newPair returns two Conns that talk to each other and are closed with the test.
func newPair(t testing.TB) (a, b *Conn) {
	t.Helper()
	fa, fb, err := Pair()
	noErr(t, err)
	a, b = must(NewConn(fa))(t), must(NewConn(fb))(t)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// newRaw returns a Conn and the bare other end.
func newRaw(t testing.TB) (*Conn, *os.File) {
	t.Helper()
	fa, fb, err := Pair()
	noErr(t, err)
	c := must(NewConn(fa))(t)
	t.Cleanup(func() { c.Close(); fb.Close() })
	return c, fb
}

func write(t testing.TB, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func wantLine(t testing.TB, c *Conn, want string) {
	t.Helper()
	if line, err := c.Read(); err != nil || string(line) != want {
		t.Fatalf("Read = %q, %v; want %q", line, err, want)
	}
}

// pipes returns n write ends, for sending, and for each the read end that shows
// which one it was.
func pipes(t testing.TB, n int) (r, w []*os.File) {
	t.Helper()
	for range n {
		a, b, err := os.Pipe()
		noErr(t, err)
		t.Cleanup(func() { a.Close(); b.Close() })
		r, w = append(r, a), append(w, b)
	}
	return r, w
}

// inode tells one open pipe or socket from another.
func inode(t testing.TB, f *os.File) string {
	t.Helper()
	var st unix.Stat_t
	control(t, f, func(fd int) error { return unix.Fstat(fd, &st) })
	return fmt.Sprint(st.Dev, ":", st.Ino)
}

func wantSameFiles(t testing.TB, got, want []*os.File) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d descriptors, want %d", len(got), len(want))
	}
	for i := range got {
		if g, w := inode(t, got[i]), inode(t, want[i]); g != w {
			t.Fatalf("descriptor %d is inode %s, want %s", i, g, w)
		}
	}
	for _, f := range got {
		noErr(t, f.Close())
	}
}

func control(t testing.TB, f *os.File, fn func(fd int) error) {
	t.Helper()
	rc := must(f.SyscallConn())(t)
	var err error
	noErr(t, rc.Control(func(fd uintptr) { err = fn(int(fd)) }))
	noErr(t, err)
}

// flag reports whether the flag of F_GETFL or F_GETFD is set.
func flag(t testing.TB, f *os.File, cmd, bit int) bool {
	t.Helper()
	var v int
	control(t, f, func(fd int) (err error) {
		v, err = unix.FcntlInt(uintptr(fd), cmd, 0)
		return err
	})
	return v&bit != 0
}

func nonblocking(t testing.TB, f *os.File) bool { return flag(t, f, unix.F_GETFL, unix.O_NONBLOCK) }

// dup returns another descriptor of the Conn's end, as another process would
// have it.
func dup(t testing.TB, c *Conn) *os.File {
	t.Helper()
	fd := -1
	control(t, c.f, func(own int) (err error) {
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	return os.NewFile(uintptr(fd), "dup")
}

// fillUp sends lines until the channel is full, and returns how many.
func fillUp(t testing.TB, c *Conn) int {
	t.Helper()
	for n := 0; ; n++ {
		err := c.TrySend(msg{N: n})
		if errors.Is(err, ErrFull) {
			return n
		}
		noErr(t, err)
	}
}

// openFDs counts this process's descriptors. Tests that use it do not run in
// parallel with others.
func openFDs(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd to count descriptors in")
	}
	return len(names)
}

// wantFDs fails the test, when all its other cleanups are done, if it has left
// descriptors open. Call it first.
func wantFDs(t testing.TB) {
	t.Helper()
	// The poller opens its own descriptors at its first use.
	r, w, err := os.Pipe()
	noErr(t, err)
	r.Close()
	w.Close()
	before := openFDs(t)
	t.Cleanup(func() {
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors open, %d before the test", after, before)
		}
	})
}

// readAll reads copies of all lines up to the error that ends the stream.
func readAll(c *Conn) (lines []string, err error) {
	for {
		line, err := c.Read()
		if err != nil {
			return lines, err
		}
		lines = append(lines, string(line))
	}
}

// reference is the dumbest possible reader: what readAll must return.
func reference(data []byte, limit int) (lines []string, err error) {
	line := []byte{}
	for _, b := range data {
		switch {
		case b != '\n' && len(line) == limit:
			return lines, ErrLineTooLong
		case b != '\n':
			line = append(line, b)
		case len(line) > 0:
			lines = append(lines, string(line))
			line = []byte{}
		}
	}
	if len(line) > 0 {
		return lines, io.ErrUnexpectedEOF
	}
	return lines, io.EOF
}
