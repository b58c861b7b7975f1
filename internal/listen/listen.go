// Package listen describes, checks and binds named listening sockets.
package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// DefaultName is the name of a socket that is given none.
const DefaultName = "http"

// Spec says which socket is meant.
type Spec struct {
	Name    string `json:"name"`
	Network string `json:"network"` // tcp, tcp4, tcp6 or unix
	Addr    string `json:"addr"`    // as for net.Listen
}

// String is what Parse reads.
func (s Spec) String() string {
	addr := s.Addr
	if s.Network == "unix" {
		addr = strings.ReplaceAll(addr, "%", "%25")
	}
	return fmt.Sprintf("%s=%s://%s", s.Name, s.Network, addr)
}

// Parse reads "[NAME=]URL", for example "http=tcp://:8080", "tcp://[::1]:80" or
// "admin=unix:///run/shop.sock", and validates it. In the path of a unix socket
// %XX stands for a byte; one that begins with @ is an abstract address (unix(7)).
func Parse(s string) (Spec, error) {
	spec := Spec{Name: DefaultName}
	rest := s
	if name, after, ok := strings.Cut(s, "="); ok && !strings.Contains(name, "://") {
		spec.Name, rest = name, after
	}
	network, addr, ok := strings.Cut(rest, "://")
	if !ok {
		return Spec{}, fmt.Errorf("listen address %q: write it as [NAME=]NETWORK://ADDRESS, for example http=tcp://127.0.0.1:8080", s)
	}
	if network == "unix" {
		path, err := url.PathUnescape(addr)
		if err != nil {
			return Spec{}, fmt.Errorf("listen address %q: %w", s, err)
		}
		addr = path
	}
	spec.Network, spec.Addr = network, addr
	if err := spec.Validate(); err != nil {
		return Spec{}, err
	}
	return spec, nil
}

// ParseAll is Parse for a list, in which a name may stand once.
func ParseAll(list []string) ([]Spec, error) {
	seen := map[string]string{}
	specs := make([]Spec, 0, len(list))
	for _, s := range list {
		spec, err := Parse(s)
		if err != nil {
			return nil, err
		}
		if other, ok := seen[spec.Name]; ok {
			return nil, fmt.Errorf("listen addresses %q and %q have the same name %q: give one of them another, NAME=%s://%s",
				other, s, spec.Name, spec.Network, spec.Addr)
		}
		seen[spec.Name] = s
		specs = append(specs, spec)
	}
	return specs, nil
}

// Validate says what is wrong with the description, without opening anything and
// without asking for host names.
func (s Spec) Validate() error {
	if s.Name == "" {
		return fmt.Errorf("socket without a name (%s://%s): give it one", s.Network, s.Addr)
	}
	// The name travels in LISTEN_FDNAMES, which is split at colons and takes
	// 255 characters (sd_listen_fds_with_names(3)).
	for _, r := range s.Name {
		if r == ':' || r == '=' || r <= ' ' || r > '~' {
			return fmt.Errorf("socket name %q: %q is not allowed, use letters, digits, '.', '-' and '_'", s.Name, r)
		}
	}
	if len(s.Name) > 255 {
		return fmt.Errorf("socket name of %d characters: at most 255", len(s.Name))
	}
	switch s.Network {
	case "tcp", "tcp4", "tcp6":
		if err := s.validateTCP(); err != nil {
			return fmt.Errorf("socket %v: %w", s, err)
		}
	case "unix":
		// sun_path has 108 bytes, the final zero included (unix(7)).
		if s.Addr == "" || len(s.Addr) > 107 {
			return fmt.Errorf("socket %v: a path of 1 to 107 bytes is needed, this one has %d", s, len(s.Addr))
		}
		if strings.ContainsRune(s.Addr, 0) {
			return fmt.Errorf("socket %s=unix://%q: a path must not contain a zero byte", s.Name, s.Addr)
		}
	default:
		return fmt.Errorf("socket %v: unknown network %q, use tcp, tcp4, tcp6 or unix", s, s.Network)
	}
	return nil
}

func (s Spec) validateTCP() error {
	if s.Addr == "" {
		return errors.New("an address is needed, such as 127.0.0.1:8080 or :8080")
	}
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	if _, err := net.LookupPort(s.Network, port); err != nil {
		return fmt.Errorf("port %q: use a number from 0 to 65535", port)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }) {
		return fmt.Errorf("host %q: neither an IP address nor a host name", host)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil: // a host name, or none
	case s.Network == "tcp4" && !ip.Unmap().Is4():
		return fmt.Errorf("%s is no IPv4 address, use tcp6", host)
	case s.Network == "tcp6" && ip.Unmap().Is4():
		return fmt.Errorf("%s is no IPv6 address, use tcp4", host)
	}
	return nil
}

// Listen binds the socket. Closing the listener never removes a unix socket's
// file; a file that a killed process left behind is replaced.
func (s Spec) Listen() (net.Listener, error) {
	ln, err := net.Listen(s.Network, s.Addr)
	if s.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) {
		if stale, serr := removeStale(s.Addr); stale {
			ln, err = net.Listen(s.Network, s.Addr)
		} else if serr != nil {
			err = fmt.Errorf("%w: %w", serr, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open socket %v: %w", s, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, nil
}

// Why a unix socket's address is in use.
var (
	errLive     = errors.New("another process listens there")
	errNoSocket = errors.New("there is a file that is no socket")
)

// removeStale removes a socket file that nobody listens on any more. Otherwise it
// says why not, if it knows.
func removeStale(path string) (bool, error) {
	st, err := os.Lstat(path)
	switch {
	case strings.HasPrefix(path, "@"):
		return false, errLive // an abstract address goes with its last socket
	case err != nil:
		return errors.Is(err, fs.ErrNotExist), nil // gone by itself
	case st.Mode().Type() != fs.ModeSocket:
		return false, errNoSocket
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return false, errLive
	case errors.Is(err, syscall.EAGAIN):
		return false, errLive // its queue is full
	case !errors.Is(err, syscall.ECONNREFUSED):
		return false, err
	}
	// Whoever came here at the same time may have replaced it.
	if now, err := os.Lstat(path); err != nil || !os.SameFile(st, now) {
		return false, errLive
	}
	err = os.Remove(path)
	return err == nil, err
}
