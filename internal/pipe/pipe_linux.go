// Package pipe gives a process an access to a pipe of which the pipe's other holders can't
// change the flags.
//
// Descriptors that were inherited or passed share one open file description (open(2)): whoever
// clears O_NONBLOCK there makes everybody else's next read or write wait. A process that must
// not wait for what others do to it opens the pipe once more.
package pipe

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Own opens the pipe behind a descriptor, which stays the caller's, once more: non-blocking,
// closed on exec. mode is os.O_RDONLY or os.O_WRONLY. What is no pipe is an error. It
// never waits.
func Own(fd, mode int) (int, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err != nil {
		return -1, fmt.Errorf("descriptor %d is not a pipe: %w", fd, os.NewSyscallError("fcntl", err))
	}
	own, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	return own, os.NewSyscallError("open", err)
}
