package image

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// place makes a copy in one way.
type place func(src *os.File) (*os.File, error)

// places are the ways, the best first. Which of the directories are there, can be written
// and allow programs, is not known before it is tried.
func places() []place {
	list := []place{inMemory}
	for _, dir := range []string{os.Getenv("STATE_DIRECTORY"), os.TempDir(), "/var/tmp", "/dev/shm"} {
		if dir != "" {
			list = append(list, onDisk(dir))
		}
	}
	return list
}

func inMemory(src *os.File) (*os.File, error) {
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3, where all can be executed
		fd, err = unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "program")
	if err = fill(f, src); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// onDisk makes one in a directory, without a name from the beginning (O_TMPFILE, open(2)).
// It is opened anew to be read only: what is open for writing can't be executed.
func onDisk(dir string) place {
	return func(src *os.File) (*os.File, error) {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return nil, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if fs.Flags&unix.ST_NOEXEC != 0 {
			return nil, fmt.Errorf("%s: %w", dir, errNoexec)
		}
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o500)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		w := os.NewFile(uintptr(fd), dir)
		defer w.Close()
		if err := fill(w, src); err != nil {
			return nil, err
		}
		return Reopen(w)
	}
}

var errNoexec = errors.New("mounted noexec")
