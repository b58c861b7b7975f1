//go:build darwin || freebsd

package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// recvFiles is the most descriptors that one recvmsg can bring. These systems'
// limits are above MaxFiles: 512 is what FreeBSD fits into a cluster.
const recvFiles = 512

// forkLocked runs fn while no process is being started, for what becomes
// close-on-exec only in a second step.
func forkLocked(fn func()) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fn()
}

func socketpair() (fds [2]int, err error) {
	forkLocked(func() {
		if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
			unix.CloseOnExec(fds[0])
			unix.CloseOnExec(fds[1])
		}
	})
	if err != nil {
		return fds, err
	}
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fds[0])
			unix.Close(fds[1])
			return fds, err
		}
	}
	return fds, nil
}

func recvmsg(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	forkLocked(func() {
		if n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_DONTWAIT); err == nil {
			fds, _ := parseRights(oob[:oobn])
			for _, got := range fds {
				unix.CloseOnExec(got)
			}
		}
	})
	return n, oobn, flags, err
}

// tune sees to it that the socket takes a line of TrySend whole or not at all,
// by the low-water mark under which a write does not begin (setsockopt(2)), and
// that writing to a peer that has gone raises no signal. If a step fails,
// TrySend finds out.
func tune(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDLOWAT, MaxTryLine+1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NOSIGPIPE, 1)
}
