package drain

import (
	"cmp"
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

// reserve is how many descriptors are left for others, but no more than a quarter of all: who may
// have few takes connections, too, which would wait in the queue for ever.
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
	return uint64(next)+min(reserve, limit.Cur/4) < limit.Cur
}

// adopt makes a connection of a descriptor, which it owns. It must be one that a
// listener of that address and family could have accepted. With errGone there is a
// connection, too.
func adopt(fd int, ln net.Addr, family int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	// The addresses do not tell whether IPv4 came to a socket of IPv6.
	if have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	} else if have != family {
		return nil, errors.New("it is not of the listener's address family")
	}
	opts := readOptions(fd) // FileConn sets what a new connection is to have
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if err := checkConn(nc, ln); errors.Is(err, errGone) {
		return nc, err
	} else if err != nil {
		nc.Close()
		return nil, err
	}
	opts.restore(fd)
	return nc, nil
}

// familyOf is a listener's address family, or -1.
func familyOf(ln net.Listener) int {
	family := -1
	if c, ok := ln.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				if v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil {
					family = v
				}
			})
		}
	}
	return family
}

// checkConn tells whether a connection's own end is where the listener is, and whether
// it has another end.
func checkConn(nc net.Conn, ln net.Addr) error {
	have := nc.LocalAddr()
	var ok bool
	switch have := have.(type) {
	case *net.TCPAddr:
		ok = at(ln, have)
	case *net.UnixAddr:
		u, is := ln.(*net.UnixAddr)
		ok = is && u.Net == have.Net && u.Name == have.Name
	}
	if !ok {
		return fmt.Errorf("it is not one of %s", ln)
	}
	if nc.RemoteAddr() != nil { // hooks do not expect that
		return nil
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			if v, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); v != 0 {
				err = errors.New("it is a listener")
			}
		})
	}
	return cmp.Or(err, errGone)
}

// at tells whether a listener at that address accepts at this one.
func at(ln net.Addr, a *net.TCPAddr) bool {
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
