package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Denied adds to an error of executing a file, if it is fs.ErrPermission, what forbids it.
func Denied(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	st, serr := os.Stat(path)
	switch {
	case serr != nil || st.IsDir():
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%w: its mode %v has no x: chmod +x", err, st.Mode())
	case noexec(path):
		return fmt.Errorf("%w: it lies on a file system that is mounted noexec", err)
	}
	return err
}
