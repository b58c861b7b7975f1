// Package listen describes, checks and binds named sockets, and takes those that a
// supervisor or a parent has bound.
package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// DefaultName is the name of a socket that is given none.
const DefaultName = "http"

// Spec says which socket is meant.
type Spec struct {
	Name    string `json:"name"`
	Network string `json:"network"` // one of the words in Networks
	Addr    string `json:"addr"`    // as for net.Listen and net.ListenPacket
}

// Networks are those that a Spec can have, for people to read.
const Networks = "tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram or unixpacket"

// Kind is the network without the version of IP: what is said of a socket that has
// been bound, too (see Kind, the function).
func (s Spec) Kind() string { return strings.TrimRight(s.Network, "46") }

// Packet reports whether the socket receives packets and is not one that listens.
func (s Spec) Packet() bool { return s.Kind() == "udp" || s.Kind() == "unixgram" }

// Unix reports whether the address is a path, or an abstract address.
func (s Spec) Unix() bool { return strings.HasPrefix(s.Network, "unix") }

// String is what Parse reads.
func (s Spec) String() string {
	addr := s.Addr
	if s.Unix() {
		addr = strings.ReplaceAll(addr, "%", "%25")
	}
	return fmt.Sprintf("%s=%s://%s", s.Name, s.Network, addr)
}

// Parse reads "[NAME=]URL", for example "http=tcp://:8080", "dns=udp://[::1]:53" or
// "admin=unix:///run/shop.sock", and validates it. In the path of a unix socket
// %XX stands for a byte; one that begins with @ is an abstract address (unix(7)).
func Parse(s string) (Spec, error) {
	spec := Spec{Name: DefaultName}
	rest := s
	if name, after, ok := strings.Cut(s, "="); ok && !strings.Contains(name, "://") {
		spec.Name, rest = name, after
	}
	var ok bool
	if spec.Network, spec.Addr, ok = strings.Cut(rest, "://"); !ok {
		return Spec{}, fmt.Errorf("listen address %q: write it as [NAME=]NETWORK://ADDRESS, for example http=tcp://127.0.0.1:8080", s)
	}
	if spec.Unix() {
		path, err := url.PathUnescape(spec.Addr)
		if err != nil {
			return Spec{}, fmt.Errorf("listen address %q: %w", s, err)
		}
		spec.Addr = path
	}
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
	if err := CheckName(s.Name); err != nil {
		return fmt.Errorf("socket %w", err)
	}
	switch s.Network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		if err := s.validateIP(); err != nil {
			return fmt.Errorf("socket %v: %w", s, err)
		}
	case "unix", "unixgram", "unixpacket":
		// sun_path has 108 bytes, the final zero included (unix(7)).
		if s.Addr == "" || len(s.Addr) > 107 {
			return fmt.Errorf("socket %v: a path of 1 to 107 bytes is needed, this one has %d", s, len(s.Addr))
		}
		if strings.ContainsRune(s.Addr, 0) {
			return fmt.Errorf("socket %s=%s://%q: a path must not contain a zero byte", s.Name, s.Network, s.Addr)
		}
	default:
		return fmt.Errorf("socket %v: unknown network %q, use %s", s, s.Network, Networks)
	}
	return nil
}

// CheckName says what is wrong with the name of a socket or file. It travels in
// LISTEN_FDNAMES, which is split at colons and takes 255 characters
// (sd_listen_fds_with_names(3)).
func CheckName(name string) error {
	if name == "" {
		return errors.New("name \"\": use letters, digits, '.', '-' and '_'")
	}
	for _, r := range name {
		if r == ':' || r == '=' || r <= ' ' || r > '~' {
			return fmt.Errorf("name %q: %q is not allowed, use letters, digits, '.', '-' and '_'", name, r)
		}
	}
	if len(name) > 255 {
		return fmt.Errorf("name of %d characters: at most 255", len(name))
	}
	return nil
}

func (s Spec) validateIP() error {
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
	case strings.HasSuffix(s.Network, "4") && !ip.Unmap().Is4():
		return fmt.Errorf("%s is no IPv4 address, use %s6", host, s.Kind())
	case strings.HasSuffix(s.Network, "6") && ip.Unmap().Is4():
		return fmt.Errorf("%s is no IPv6 address, use %s4", host, s.Kind())
	}
	return nil
}
