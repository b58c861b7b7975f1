package wire

import "golang.org/x/sys/unix"

// recvFiles is the most descriptors that one recvmsg can bring: the kernel never
// merges those of two messages.
const recvFiles = MaxFiles

func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

func recvmsg(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	return n, oobn, flags, err
}

// tune sees to it that the socket takes a line of TrySend whole or not at all:
// unix_stream_sendmsg puts up to half of SO_SNDBUF into one buffer, and either
// gets that buffer or writes nothing. The default, 208 KiB, is ample; somebody
// may have lowered it.
func tune(fd int) {
	const enough = 8 * MaxTryLine
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil && v < enough {
		// If it fails, TrySend finds out.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, enough)
	}
}
