package listen

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// StoreName is the name under which a supervisor keeps a socket that this service has
// bound (FDNAME=, sd_notify(3)). It says name, network and address, of each other socket
// it is another one, and no Spec can have it as its name: '=' is not allowed there.
func (s Spec) StoreName() string {
	sum := sha256.Sum256([]byte(s.String()))
	return fmt.Sprintf("%.200s=%x", s.Name, sum[:8])
}

// TextName is the name under which a supervisor keeps a text, see Text. No socket has it.
const TextName = "text="

// Text is what a process of this service that has died had given its supervisor to keep
// under TextName, of at most so many bytes, and nil if there is nothing. It takes nothing,
// neither out of the environment nor of the descriptor, and is for use before FromSupervisor,
// or, with parent, FromParent.
func Text(limit int, parent bool) []byte {
	list, err := parse(os.Getenv(EnvFds), os.Getenv(EnvNames), os.Getenv(EnvPid), os.Getpid(), parent)
	if err != nil {
		return nil // which who takes them says
	}
	fd := list.File(TextName)
	b := make([]byte, limit+1)
	n := 0
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], int64(n))
		if err != nil {
			return nil
		}
		if m == 0 {
			return b[:n]
		}
		n += m
	}
	return nil
}

func isStoreName(name string) bool { return strings.Contains(name, "=") }

// CheckStored says what is wrong with a name under which a supervisor is to keep a
// descriptor, which has to fit into LISTEN_FDNAMES.
func CheckStored(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r < ' ' || r > '~' }) {
		return errors.New("a name of 1 to 255 printable characters and no ':' is needed")
	}
	return nil
}

// reachable reports whether there is still a file at the address of a unix socket:
// systemd keeps the socket, and makes its directory anew (RuntimeDirectory=,
// systemd.exec(5)). Nobody could come to it any more.
func (s Spec) reachable() bool {
	if !strings.HasPrefix(s.Network, "unix") || !filepath.IsAbs(s.Addr) {
		return true
	}
	st, err := os.Lstat(s.Addr)
	return err == nil && st.Mode()&os.ModeSocket != 0
}
