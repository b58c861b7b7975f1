//go:build unix

package drain

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acceptable tells whether a connection waits in a listener's queue.
func acceptable(ln net.Listener) bool { return polled(ln, unix.POLLIN) }

// writable tells whether a little could be written to a connection's socket at once.
func writable(nc net.Conn) bool { return polled(nc, unix.POLLOUT) }

// polled tells whether a socket is ready for something (poll(2)). What is no socket, is not.
func polled(v any, events int16) bool {
	sc, ok := v.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
	})
	return n > 0
}

// readable tells whether bytes wait in a connection's socket (MSG_PEEK in
// recv(2)). A connection without a socket has none that could be seen.
func readable(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	// Control and not Read, which would wait for the server's own Read.
	n := 0
	raw.Control(func(fd uintptr) {
		n, _, _ = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return n > 0
}
