package workerset

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// This file finds out which process has accepted a connection (sock_diag(7), proc(5)).

// accepted is the inode of the other end of a TCP connection on this machine, or ""
// as long as nobody has accepted it.
func accepted(c net.Conn) (inode string, err error) {
	ours, err1 := netip.ParseAddrPort(c.LocalAddr().String())
	theirs, err2 := netip.ParseAddrPort(c.RemoteAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	// Who is told of his own end is told of the other one, too. The tables are of all connections
	// of this machine, closed ones included.
	if own, ok := diagnose(ours, theirs); ok && own != 0 {
		if inode, _ := diagnose(theirs, ours); inode != 0 {
			return fmt.Sprint(inode), nil
		}
		return "", nil
	}
	return acceptedByTable(ours, theirs), nil
}

// acceptedByTable is for where nobody may ask the kernel.
func acceptedByTable(ours, theirs netip.AddrPort) (inode string) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if b, err := os.ReadFile(table); err == nil {
			if inode := findSocket(string(b), theirs, ours); inode != "" {
				return inode
			}
		}
	}
	return ""
}

// findSocket looks for a connection in a table of /proc/net and returns its inode,
// or "" if it is not there, or was not accepted (0).
func findSocket(table string, local, remote netip.AddrPort) (inode string) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[9] == "0" {
			continue
		}
		l, lerr := parseEndpoint(f[1])
		r, rerr := parseEndpoint(f[2])
		if lerr == nil && rerr == nil && same(l, local) && same(r, remote) {
			return f[9]
		}
	}
	return ""
}

func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap()
}

// parseEndpoint reads "0100007F:1F90": words of four bytes in this machine's order,
// which is little-endian wherever this runs, then the port.
func parseEndpoint(s string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no endpoint", s)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no endpoint", s)
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// owns reports whether a process, or one that descends from it, has the socket of
// that inode open.
func owns(pid int, inode string) bool {
	return ownsWithin(pid, inode, 16) // deeper is no wrapper
}

func ownsWithin(pid int, inode string, depth int) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	fds, _ := os.ReadDir(proc + "fd")
	for _, fd := range fds {
		if to, err := os.Readlink(proc + "fd/" + fd.Name()); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	if depth == 0 {
		return false
	}
	tasks, _ := os.ReadDir(proc + "task")
	for _, t := range tasks {
		b, _ := os.ReadFile(proc + "task/" + t.Name() + "/children")
		for _, child := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(child); err == nil && ownsWithin(n, inode, depth-1) {
				return true
			}
		}
	}
	return false
}
