package listen

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// StoreName is the name under which a supervisor keeps a socket that this service has
// bound (FDNAME=, sd_notify(3)). It says name, network and address, of each other socket
// it is another one, and no Spec can have it as its name: '=' is not allowed there.
func (s Spec) StoreName() string {
	sum := sha256.Sum256([]byte(s.String()))
	return fmt.Sprintf("%.200s=%x", s.Name, sum[:8])
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
