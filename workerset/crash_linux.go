package workerset

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newCrashFile is where a worker's runtime writes its report when it dies
// (debug.SetCrashOutput). It is a file in memory and no pipe: nobody has to read it
// while the worker dies, nor wait, and it costs nothing if nothing is written.
func newCrashFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
