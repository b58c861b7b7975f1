package drain

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// errGone: the client has closed the connection.
var errGone = errors.New("drain: the client has gone")

// reserve is how many descriptors are left for others.
const reserve = 64

// roomForOne tells whether a connection more leaves the reserve alone. The kernel gives
// the lowest number that is free, and a message that comes when there is none loses its
// descriptor. A connection takes two for a moment (net.FileConn copies), so that the
// lowest stays free, however many there are.
func roomForOne() bool {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return true
	}
	lowest, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 0)
	if errors.Is(err, unix.EBADF) {
		return true
	} else if err != nil {
		return false
	}
	defer unix.Close(lowest)
	next, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return false
	}
	defer unix.Close(next)
	return uint64(next)+reserve < limit.Cur
}

// adopt makes a connection of a descriptor, which it owns. It must be one that ln could
// have accepted.
func adopt(fd int, ln net.Listener) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	if err := checkSocket(fd, ln); err != nil {
		return nil, err
	}
	if _, err := unix.Getpeername(fd); errors.Is(err, unix.ENOTCONN) {
		return nil, errGone
	} else if err != nil {
		return nil, os.NewSyscallError("getpeername", err)
	}
	// FileConn sets what a new connection is to have.
	opts := readOptions(fd)
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if nc.RemoteAddr() == nil { // hooks do not expect that
		nc.Close()
		return nil, errGone
	}
	opts.restore(fd)
	return nc, nil
}

// checkSocket tells whether the connection is ln's.
func checkSocket(fd int, ln net.Listener) error {
	lnfd := -1
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(l uintptr) { lnfd = int(l); err = sameKind(fd, lnfd) })
	}
	if err != nil {
		return err
	}
	have, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	var ok bool
	switch have := have.(type) {
	case *unix.SockaddrInet4:
		ok = at(ln.Addr(), net.TCPAddr{IP: have.Addr[:], Port: have.Port})
	case *unix.SockaddrInet6:
		ok = at(ln.Addr(), net.TCPAddr{IP: have.Addr[:], Port: have.Port})
	case *unix.SockaddrUnix:
		u, is := ln.Addr().(*net.UnixAddr)
		ok = is && u.Name == have.Name
	}
	if !ok {
		return fmt.Errorf("it is not one of %s", ln.Addr())
	}
	return nil
}

func sameKind(fd, lnfd int) error {
	for _, opt := range []int{unix.SO_DOMAIN, unix.SO_TYPE} {
		have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		if want, err := unix.GetsockoptInt(lnfd, unix.SOL_SOCKET, opt); err != nil || have != want {
			return errors.New("it is not of the listener's kind")
		}
	}
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || v != 0 {
		return errors.New("it is a listener")
	}
	return nil
}

// at tells whether a listener at that address accepts at this one.
func at(ln net.Addr, a net.TCPAddr) bool {
	l, ok := ln.(*net.TCPAddr)
	return ok && l.Port == a.Port && (l.IP == nil || l.IP.IsUnspecified() || l.IP.Equal(a.IP))
}

// options are those that net.FileConn changes.
type options [5]int

var optionNames = [...][2]int{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
}

func readOptions(fd int) (o options) {
	for i, n := range optionNames {
		v, err := unix.GetsockoptInt(fd, n[0], n[1])
		if err != nil {
			v = -1 // a unix socket has none
		}
		o[i] = v
	}
	return o
}

// usual is what net.FileConn has made of the options of the first TCP connection. Most
// have these already, and that is cheaper to see than to set.
var usual atomic.Pointer[options]

// restore sets the options of a connection that net.FileConn has just made.
func (o options) restore(fd int) {
	now := usual.Load()
	if now == nil {
		first := readOptions(fd)
		now = &first
		if o[0] >= 0 {
			usual.Store(now)
		}
	}
	for i, n := range optionNames {
		if o[i] >= 0 && o[i] != now[i] {
			_ = unix.SetsockoptInt(fd, n[0], n[1], o[i])
		}
	}
}
