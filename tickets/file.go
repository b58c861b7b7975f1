package tickets

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errLocked: another process writes.
var errLocked = errors.New("locked by another process")

// read reads where everybody else reads, too: all who have the file share its offset, so
// that is left alone. What is missing is zero.
func read(f *os.File) (b [size]byte, err error) {
	if _, err = f.ReadAt(b[:], 0); errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

func write(f *os.File, b [size]byte) error {
	_, err := f.WriteAt(b[:], 0)
	return err
}

// lock locks the file against other processes until unlock, without waiting. The lock is of
// the kind that belongs to a process and ends with it: all descriptors of the file are copies
// of one, and a lock of the other kinds (flock(2), F_OFD_SETLK in fcntl(2)) would be everybody's
// at once. Whoever closes another copy in this process gives it up early: two may write then,
// and at worst some tickets of the one are not known to the other.
func lock(f *os.File) (unlock func(), err error) {
	if err := setLock(f, unix.F_WRLCK); err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errLocked
		}
		return nil, err
	}
	return func() { _ = setLock(f, unix.F_UNLCK) }, nil
}

func setLock(f *os.File, typ int16) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lerr error
	err = rc.Control(func(fd uintptr) {
		lerr = unix.FcntlFlock(fd, unix.F_SETLK, &unix.Flock_t{Type: typ, Whence: io.SeekStart})
	})
	return errors.Join(err, os.NewSyscallError("fcntl", lerr))
}
