package workerset

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile is a file that has no name in the file system. A worker's runtime writes
// its report into one when it dies (debug.SetCrashOutput): unlike of a pipe, nobody has
// to read it while the worker dies, nor wait, and it costs nothing if nothing is
// written.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
