package upgrader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
)

// Socket is a listening socket under a name. It is kept as a bare descriptor,
// outside Go's poller: a process that holds it for others and never accepts must
// not wake up at every connection.
//
// Its methods may be called from any goroutine.
type Socket struct {
	spec listen.Spec

	mu sync.Mutex
	fd int // -1 when closed
	// A unix socket's file, to remove just this one.
	file    os.FileInfo
	retired bool // Close removes it
	bound   bool // by this process, not inherited
}

// openSocket binds a new socket.
func openSocket(spec listen.Spec) (*Socket, error) {
	ln, err := spec.Listen()
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	fd, err := dupConn(ln.(syscall.Conn))
	if err != nil {
		return nil, fmt.Errorf("open socket %v: %w", spec, err)
	}
	s := &Socket{spec: spec, fd: fd, bound: true}
	s.remember()
	return s, nil
}

// inheritSocket makes a Socket of a descriptor that came from the predecessor.
// It takes ownership of f.
func inheritSocket(spec listen.Spec, f *os.File) (*Socket, error) {
	fd, err := dupConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("inherit socket %v: %w", spec, err)
	}
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || n == 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("inherit socket %v: the descriptor is not a listening socket", spec)
	}
	s := &Socket{spec: spec, fd: fd}
	s.remember()
	return s, nil
}

func (s *Socket) remember() {
	if s.spec.Network == "unix" && !strings.HasPrefix(s.spec.Addr, "@") {
		s.file, _ = os.Lstat(s.spec.Addr)
	}
}

// Name is the socket's name.
func (s *Socket) Name() string { return s.spec.Name }

// Addr is the address that the socket is bound to.
func (s *Socket) Addr() net.Addr {
	ln, err := s.Listener()
	if err != nil {
		return nil
	}
	defer ln.Close()
	return ln.Addr()
}

// Fd is the socket's descriptor, or -1 after Close. It stays the Socket's: to
// start a process with it is fine, to close it or to change its flags is not.
func (s *Socket) Fd() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fd
}

// Listener returns a listener on the socket, for a process that accepts. It has
// a descriptor of its own; closing it does not close the Socket.
func (s *Socket) Listener() (net.Listener, error) {
	f, err := s.dup()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %v: %w", s.spec, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, nil
}

// dup is a copy to send or to wrap. It is in the poller, so keep it short.
func (s *Socket) dup() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, fmt.Errorf("socket %v: %w", s.spec, net.ErrClosed)
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("socket %v: %w", s.spec, err)
	}
	return os.NewFile(uintptr(fd), s.spec.Name), nil
}

// Close closes this process's copy. Other processes' copies go on.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	if s.retired && s.file != nil {
		if st, err := os.Lstat(s.spec.Addr); err == nil && os.SameFile(st, s.file) {
			os.Remove(s.spec.Addr)
		}
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// retire makes Close remove a unix socket's file, if it is still this socket's:
// no other process will serve it.
func (s *Socket) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
}

func dupConn(c syscall.Conn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var derr error
	err = rc.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(err, derr)
}
