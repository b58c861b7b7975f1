package listen

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// bindOrSkip binds a socket until the test's end.
func bindOrSkip(t *testing.T, s Spec) (fd int) {
	t.Helper()
	if s.Network == "unixpacket" && runtime.GOOS == "darwin" {
		t.Skip("this system has no SOCK_SEQPACKET for unix sockets")
	}
	fd, err := s.Bind()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// every network, with an address at which something can be bound.
func every(t *testing.T) []Spec {
	t.Helper()
	dir, err := os.MkdirTemp("", "l") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return []Spec{
		{"a", "tcp", "127.0.0.1:0"}, {"b", "tcp4", "127.0.0.1:0"}, {"c", "tcp6", "[::1]:0"},
		{"d", "udp", "127.0.0.1:0"}, {"e", "udp4", "127.0.0.1:0"}, {"f", "udp6", "[::1]:0"},
		{"g", "unix", filepath.Join(dir, "g")}, {"h", "unixgram", filepath.Join(dir, "h")}, {"i", "unixpacket", filepath.Join(dir, "i")},
	}
}

func TestBind(t *testing.T) {
	for _, s := range every(t) {
		t.Run(s.Network, func(t *testing.T) {
			fd := bindOrSkip(t, s)
			if kind, err := Kind(fd); kind != s.Kind() || err != nil {
				t.Errorf("it is %s, %v", kind, err)
			}
			addr := Addr(fd)
			if addr == nil || addr.Network() != s.Kind() {
				t.Fatalf("bound to %v", addr)
			}
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags %#x, %v", flags, err)
			}
			again := Spec{"again", s.Network, addr.String()}
			_, err = again.Bind()
			if !errors.Is(err, syscall.EADDRINUSE) || !again.boundTo(fd) {
				t.Errorf("a second time: %v; it is the first: %v", err, again.boundTo(fd))
			}
		})
	}
	addr := Addr(bindOrSkip(t, Spec{"http", "tcp", "127.0.0.1:0"})).String()
	_, err := Spec{"http", "tcp", addr}.Bind()
	want := "open socket http=tcp://" + addr + ": listen tcp " + addr + ": bind: address already in use"
	if err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
}

// A unix socket's file that a killed process has left behind is replaced, whatever
// kind of socket it was; that of a living one, and what is no socket, stays.
func TestUnix(t *testing.T) {
	dir := t.TempDir()
	networks := []string{"unix", "unixgram", "unixpacket"}
	for _, left := range networks {
		for _, wanted := range networks {
			t.Run(left+", then "+wanted, func(t *testing.T) {
				s := Spec{"x", left, filepath.Join(dir, "s")}
				t.Cleanup(func() { os.Remove(s.Addr) })
				fd := bindOrSkip(t, s)
				s.Network = wanted
				inUse(t, s, "another process listens there")
				// Closed, but not removed: as a killed process leaves it.
				unix.Close(fd)
				if _, err := os.Lstat(s.Addr); err != nil {
					t.Fatal(err)
				}
				if fd = bindOrSkip(t, s); !s.boundTo(fd) {
					t.Error("not the socket that is asked for")
				}
				c, err := net.Dial(wanted, s.Addr)
				if err != nil {
					t.Fatalf("not the socket that was bound: %v", err)
				}
				c.Close()
			})
		}
	}
	for _, network := range networks {
		file := Spec{"x", network, filepath.Join(dir, "file")}
		if err := os.WriteFile(file.Addr, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		inUse(t, file, "there is a file that is no socket")
		if b, _ := os.ReadFile(file.Addr); string(b) != "precious" {
			t.Error("the file is not what it was")
		}
		missing := Spec{"x", network, filepath.Join(dir, "no", "s")}
		if _, err := missing.Bind(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a missing directory: %v", err)
		}
	}
}

func inUse(t *testing.T, s Spec, why string) {
	t.Helper()
	_, err := s.Bind()
	want := "open socket " + s.String() + ": " + why + ": listen " + s.Network + " " + s.Addr + ": bind: address already in use"
	if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf(" got %v\nwant %s", err, want)
	}
}

// Whoever only holds a socket does not change what all holders share.
func TestFlagsStay(t *testing.T) {
	for _, s := range every(t) {
		fd := bindOrSkip(t, s)
		for _, nonblock := range []bool{false, true} {
			if err := unix.SetNonblock(fd, nonblock); err != nil {
				t.Fatal(err)
			}
			Addr(fd)
			_, _ = Kind(fd)
			_ = s.Check(fd)
			_ = s.boundTo(fd)
			p := Passed{{s.Name, fd}}
			if got, _, err := p.Socket(s); got != fd || err != nil {
				t.Errorf("%d, %v", got, err)
			}
			f, err := File(fd, "a copy")
			if err != nil {
				t.Fatal(err)
			}
			if n, err := DupConn(f); err != nil {
				t.Error(err)
			} else {
				unix.Close(n)
			}
			f.Close()
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK != 0 != nonblock {
				t.Errorf("%v: flags %#x, %v, after it was non-blocking: %v", s, flags, err, nonblock)
			}
		}
	}
}
