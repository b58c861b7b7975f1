package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KindFile is the kind of a descriptor that is none of the sockets that a Spec
// describes.
const KindFile = "file"

// ErrKind is wrapped where a descriptor is not what is asked for.
var ErrKind = errors.New("wrong kind of descriptor")

// Kind says what an open descriptor is: "tcp", "unix" or "unixpacket" when it
// listens, "udp" or "unixgram", else KindFile.
func Kind(fd int) (string, error) {
	kind, listens, err := inspect(fd)
	if kind != "udp" && kind != "unixgram" && !listens {
		kind = KindFile
	}
	return kind, err
}

// inspect asks the kernel what a descriptor is (socket(7), getsockname(2)).
func inspect(fd int) (kind string, listens bool, err error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return "", false, fmt.Errorf("not open: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return KindFile, false, nil // no socket, or a strange one
	}
	ip := false
	switch sa.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		ip = true
	case *unix.SockaddrUnix:
	default:
		return KindFile, false, nil
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", false, err
	}
	switch {
	case ip && typ == unix.SOCK_STREAM:
		kind = "tcp"
	case ip && typ == unix.SOCK_DGRAM:
		kind = "udp"
	case !ip && typ == unix.SOCK_STREAM:
		kind = "unix"
	case !ip && typ == unix.SOCK_DGRAM:
		kind = "unixgram"
	case !ip && typ == unix.SOCK_SEQPACKET:
		kind = "unixpacket"
	default:
		return KindFile, false, nil
	}
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return kind, err == nil && n != 0, nil
}

// Check says why a descriptor can't be the socket that s describes, whatever its
// address is. The error names both and wraps ErrKind.
func (s Spec) Check(fd int) error {
	kind, listens, err := inspect(fd)
	if err != nil {
		return err
	}
	if kind == s.Kind() && (listens || s.Packet()) {
		return nil
	}
	what := "a " + kind + " socket"
	switch {
	case kind == KindFile:
		what = "no socket of a kind that is known here"
	case kind == s.Kind():
		what += " that does not listen"
	}
	return fmt.Errorf("%w: it is %s, and %v asks for a %s socket", ErrKind, what, s, s.Kind())
}

// Addr is the address that a socket is bound to (getsockname(2)), nil if there is
// none. Unlike package net's ways to find out, it leaves the socket's flags alone.
func Addr(fd int) net.Addr {
	kind, _, err := inspect(fd)
	if err != nil {
		return nil
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil
	}
	var ip net.IP
	var port int
	var zone string
	switch sa := sa.(type) {
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: kind}
	case *unix.SockaddrInet4:
		ip, port = sa.Addr[:], sa.Port
	case *unix.SockaddrInet6:
		ip, port, zone = sa.Addr[:], sa.Port, zoneName(sa.ZoneId)
	}
	switch kind {
	case "tcp":
		return &net.TCPAddr{IP: ip, Port: port, Zone: zone}
	case "udp":
		return &net.UDPAddr{IP: ip, Port: port, Zone: zone}
	}
	return nil
}

func zoneName(id uint32) string {
	if id == 0 {
		return ""
	}
	if ifi, err := net.InterfaceByIndex(int(id)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}

// boundTo reports whether a descriptor is the socket that s describes, address and
// all. Where s means every address of the host, so may the socket, in either
// version of IP that s allows. Host names are looked up.
func (s Spec) boundTo(fd int) bool {
	if s.Check(fd) != nil {
		return false
	}
	switch have := Addr(fd).(type) {
	case *net.UnixAddr:
		return have.Name == s.Addr || !abstract(have.Name) && !abstract(s.Addr) && samePath(have.Name, s.Addr)
	case *net.TCPAddr:
		want, err := net.ResolveTCPAddr(s.Network, s.Addr)
		return err == nil && s.same(have.AddrPort(), want.AddrPort())
	case *net.UDPAddr:
		want, err := net.ResolveUDPAddr(s.Network, s.Addr)
		return err == nil && s.same(have.AddrPort(), want.AddrPort())
	}
	return false
}

func (s Spec) same(have, want netip.AddrPort) bool {
	h, w := have.Addr().Unmap(), want.Addr().Unmap()
	if !w.IsValid() || w.IsUnspecified() {
		return h.IsUnspecified() && have.Port() == want.Port() &&
			(h.Is4() || !strings.HasSuffix(s.Network, "4")) && (h.Is6() || !strings.HasSuffix(s.Network, "6"))
	}
	return h == w && have.Port() == want.Port()
}

func abstract(addr string) bool { return addr == "" || addr[0] == '@' }

func samePath(a, b string) bool {
	a, aerr := filepath.Abs(a)
	b, berr := filepath.Abs(b)
	return aerr == nil && berr == nil && a == b
}
