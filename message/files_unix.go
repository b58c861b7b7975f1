//go:build unix

package message

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// duplicates are copies of files, close-on-exec.
func duplicates(files []*os.File) (copies []*os.File, err error) {
	for _, f := range files {
		fd := -1
		rc, err := f.SyscallConn()
		if err == nil {
			cerr := rc.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
			if cerr != nil {
				err = cerr
			}
		}
		if err != nil {
			closeAll(copies)
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		copies = append(copies, os.NewFile(uintptr(fd), f.Name()))
	}
	return copies, nil
}
