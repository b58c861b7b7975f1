package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Auto asks for the path that Path finds.
const Auto = "auto"

// shared is a file system in memory that every container has, also one whose root is
// read-only (OCI runtime specification, default filesystems; shm_overview(7)).
var shared = "/dev/shm"

// dir is where services' sockets are: in $RUNTIME_DIRECTORY (systemd.exec(5)), in
// $XDG_RUNTIME_DIR/handover, or in a directory of the user's: under the temporary one,
// or, where that can't be written, in shared. create says that it may have to be made;
// it is to be the user's alone.
func dir() (path string, create bool) {
	if list := os.Getenv("RUNTIME_DIRECTORY"); list != "" {
		first, _, _ := strings.Cut(list, ":")
		return first, false
	}
	if x := os.Getenv("XDG_RUNTIME_DIR"); x != "" {
		return filepath.Join(x, "handover"), true
	}
	own := fmt.Sprintf("handover-%d", os.Geteuid())
	tmp := os.TempDir()
	if !writable(tmp) && !writable(filepath.Join(tmp, own)) && writable(shared) {
		tmp = shared
	}
	return filepath.Join(tmp, own), true
}

// writable reports whether this user may make files in a directory (access(2)).
func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// Path is where the socket of the service of that name is. path, if it is neither
// empty nor Auto, is a path that somebody has decided on.
func Path(path, name string) string {
	if path != "" && path != Auto {
		return path
	}
	d, _ := dir()
	return filepath.Join(d, name+".sock")
}

var (
	// ErrDirectory is wrapped where a directory can't be trusted.
	ErrDirectory = errors.New("can't be used for the control socket")
	// ErrNowhere is wrapped where Auto finds no directory that can be written.
	ErrNowhere = errors.New("there is no place for a control socket")
)

// Prepare makes sure that the socket's directory is there, and nobody else's.
func Prepare(path string) error {
	d, create := dir()
	if !create || filepath.Dir(path) != d {
		return nil // decided on by somebody else
	}
	switch err := os.Mkdir(d, 0o700); {
	case err == nil, errors.Is(err, fs.ErrExist):
	case os.Getenv("XDG_RUNTIME_DIR") == "":
		return fmt.Errorf("%w: %w: mount a tmpfs at %s, or say --control PATH", ErrNowhere, err, os.TempDir())
	default:
		return fmt.Errorf("directory of the control socket: %w", err)
	}
	return checkOwn(d)
}

// checkOwn makes sure that a directory is this user's alone.
func checkOwn(d string) error {
	st, err := os.Lstat(d)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return fmt.Errorf("%s %w: it is no directory", d, ErrDirectory)
	case ok && int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%s %w: it belongs to user %d", d, ErrDirectory, sys.Uid)
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s %w: others may use it (mode %v): chmod 700 it", d, ErrDirectory, st.Mode().Perm())
	}
	return nil
}

// trust makes sure that whoever asks by a path in a directory that anybody could have made, below
// the temporary one, asks this user's service and no impostor.
func trust(path string) error {
	if os.Getenv("XDG_RUNTIME_DIR") != "" || !Private(path) {
		return nil
	}
	if err := checkOwn(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Private reports whether the socket is in a directory that is to be the user's alone.
func Private(path string) bool {
	d, create := dir()
	return create && filepath.Dir(path) == d
}

// Share makes the socket at a path that of a group, too, or its user's alone; -1 is no
// group.
func Share(path string, gid int) error {
	if !isSocket(path) {
		return fmt.Errorf("%s: it is no socket any more", path)
	}
	if gid < 0 {
		return os.Chmod(path, 0o600)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give it to group %d: %w: only root, and members, may do so", gid, err)
	}
	return os.Chmod(path, 0o660)
}
