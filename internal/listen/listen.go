// Package listen describes, checks and binds named listening sockets.
package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
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

func (s Spec) String() string { return fmt.Sprintf("%s=%s://%s", s.Name, s.Network, s.Addr) }

// Parse reads "[NAME=]URL", for example "http=tcp://:8080", "tcp://[::1]:80" or
// "admin=unix:///run/shop.sock", and validates it.
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

// Validate says what is wrong with the description, without opening anything.
func (s Spec) Validate() error {
	if s.Name == "" {
		return fmt.Errorf("socket without a name (%s://%s): give it one", s.Network, s.Addr)
	}
	// The name travels in LISTEN_FDNAMES, which is split at colons and takes
	// 255 characters (sd_listen_fds_with_names(3)).
	for _, r := range s.Name {
		if r == ':' || r <= ' ' || r > '~' {
			return fmt.Errorf("socket name %q: %q is not allowed, use letters, digits, '-' and '_'", s.Name, r)
		}
	}
	if len(s.Name) > 255 {
		return fmt.Errorf("socket name of %d characters: at most 255", len(s.Name))
	}
	switch s.Network {
	case "tcp", "tcp4", "tcp6":
		if s.Addr == "" {
			return fmt.Errorf("socket %v: an address is needed, such as 127.0.0.1:8080 or :8080", s)
		}
		if _, err := net.ResolveTCPAddr(s.Network, s.Addr); err != nil {
			return fmt.Errorf("socket %v: %w", s, err)
		}
	case "unix":
		// sun_path has 108 bytes, the final zero included (unix(7)).
		if s.Addr == "" || len(s.Addr) > 107 {
			return fmt.Errorf("socket %v: a path of 1 to 107 bytes is needed, this one has %d", s, len(s.Addr))
		}
	default:
		return fmt.Errorf("socket %v: unknown network %q, use tcp, tcp4, tcp6 or unix", s, s.Network)
	}
	return nil
}

// Listen binds the socket. Closing the listener never removes a unix socket's
// file; a file that a killed process left behind is replaced.
func (s Spec) Listen() (net.Listener, error) {
	ln, err := net.Listen(s.Network, s.Addr)
	if s.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) && removeStale(s.Addr) {
		ln, err = net.Listen(s.Network, s.Addr)
	}
	if err != nil {
		return nil, fmt.Errorf("open socket %v: %w", s, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, nil
}

// removeStale removes a socket file that nobody listens on any more.
func removeStale(path string) bool {
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}
