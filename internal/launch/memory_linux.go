package launch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MemoryFile is a file that has no name in the file system: what one process has to say
// to another one, which may read it when the first has gone. A worker's runtime writes
// its report into one when it dies (debug.SetCrashOutput): unlike of a pipe, nobody has
// to read it while the worker dies, nor wait, and it costs nothing if nothing is
// written.
func MemoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
