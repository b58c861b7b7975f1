package sdnotify

import (
	"os"

	"golang.org/x/sys/unix"
)

// StoreText gives the supervisor a text to keep under the name, instead of what it has.
func StoreText(name string, text []byte) error {
	if err := Unstore(name); err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("text", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "text")
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return Store(name, f)
}
