package listen

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bind binds the socket, makes it listen unless it is one for packets, and returns
// its descriptor, which is non-blocking and closed on exec. To close it never
// removes a unix socket's file; a file that a killed process left behind is
// replaced.
func (s Spec) Bind() (fd int, err error) {
	c, err := s.bind()
	if s.Unix() && errors.Is(err, syscall.EADDRINUSE) {
		if stale, serr := removeStale(s.Addr); stale {
			c, err = s.bind()
		} else if serr != nil {
			err = fmt.Errorf("%w: %w", serr, err)
		}
	}
	if err == nil {
		defer c.Close()
		fd, err = DupConn(c)
	}
	if err != nil {
		return -1, fmt.Errorf("open socket %v: %w", s, err)
	}
	return fd, nil
}

// bound is what package net makes of every kind of socket.
type bound interface {
	syscall.Conn
	io.Closer
}

func (s Spec) bind() (bound, error) {
	if s.Packet() {
		c, err := net.ListenPacket(s.Network, s.Addr)
		if err != nil {
			return nil, err
		}
		return c.(bound), nil
	}
	ln, err := net.Listen(s.Network, s.Addr)
	if err != nil {
		return nil, err
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln.(bound), nil
}

// Why a unix socket's address is in use.
var (
	errLive = errors.New("another process listens there")
	// ErrNoSocket: it is left alone.
	ErrNoSocket = errors.New("there is a file that is no socket")
)

// removeStale removes a socket file that no process has bound any more, of
// whatever kind the socket was. Otherwise it says why not, if it knows.
func removeStale(path string) (bool, error) {
	st, err := os.Lstat(path)
	switch {
	case strings.HasPrefix(path, "@"):
		return false, errLive // an abstract address goes with its last socket
	case err != nil:
		return errors.Is(err, fs.ErrNotExist), nil // gone by itself
	case st.Mode().Type() != fs.ModeSocket:
		return false, ErrNoSocket
	}
	// Whoever asks as a datagram socket is told whether there is a socket without
	// being a client of it: a live one of another kind refuses with EPROTOTYPE
	// (connect(2)).
	c, err := net.Dial("unixgram", path)
	switch {
	case err == nil:
		c.Close()
		return false, errLive
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EPERM):
		return false, errLive // EPERM: it is connected to somebody
	case !errors.Is(err, syscall.ECONNREFUSED):
		return false, err
	}
	// Whoever came here at the same time may have replaced it.
	if now, err := os.Lstat(path); err != nil || !os.SameFile(st, now) {
		return false, errLive
	}
	err = os.Remove(path)
	return err == nil, err
}

// DupConn returns a copy of a connection's descriptor, closed on exec, and leaves
// the flags that all copies share alone.
func DupConn(c syscall.Conn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var derr error
	err = rc.Control(func(n uintptr) { fd, derr = dup(int(n)) })
	return fd, errors.Join(err, derr)
}

func dup(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	return n, os.NewSyscallError("fcntl", err)
}

// File returns a file on a copy of a descriptor. The flags that all copies share
// stay as they are; if the descriptor is non-blocking, the file is in the
// runtime's poller.
func File(fd int, name string) (*os.File, error) {
	n, err := dup(fd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), name), nil
}

// Listener returns a listener on a copy of a descriptor. It makes the socket
// non-blocking, for everybody who has it. Closing it never removes a unix socket's
// file.
func Listener(fd int) (net.Listener, error) {
	f, err := File(fd, "socket")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, err
}

// PacketConn is Listener for a socket that receives packets. Reading begins when
// open is closed.
func PacketConn(fd int, open <-chan struct{}) (*Packets, error) {
	f, err := File(fd, "socket")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	return newPackets(c, open), nil
}
