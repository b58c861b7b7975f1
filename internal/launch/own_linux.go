package launch

import (
	"os"

	"golang.org/x/sys/unix"
)

// OwnPidfd is a pidfd of this process, for somebody who is to follow it (Adopt). It is the
// caller's to close.
func OwnPidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}
