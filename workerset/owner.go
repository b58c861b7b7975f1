package workerset

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// This file finds out which process has accepted a connection (proc(5)).

// acceptedBy is a process that has the other end of a TCP connection on this
// machine, or 0 as long as nobody has accepted it.
func acceptedBy(c net.Conn) (pid int, err error) {
	ours, err1 := netip.ParseAddrPort(c.LocalAddr().String())
	theirs, err2 := netip.ParseAddrPort(c.RemoteAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if inode := findSocket(string(b), theirs, ours); inode != "" {
			return holder(inode), nil
		}
	}
	return 0, nil
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

// holder is a process that has the socket of that inode open, or 0.
func holder(inode string) int {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(strings.Split(l, "/")[2])
			return pid
		}
	}
	return 0
}

// belongs reports whether a process is the worker, in its session, or descends from
// it.
func belongs(pid, worker int) bool {
	for range 64 {
		ppid, session := relatives(pid)
		switch {
		case pid == worker, session == worker:
			return true
		case ppid <= 1:
			return false
		}
		pid = ppid
	}
	return false
}

// relatives are the pid of a process's parent and that of its session's leader, or 0.
func relatives(pid int) (ppid, session int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// pid (name) state ppid pgrp session …, where the name can hold anything.
	f := strings.Fields(string(b[max(0, strings.LastIndexByte(string(b), ')')):]))
	if len(f) < 5 {
		return 0, 0
	}
	ppid, _ = strconv.Atoi(f[2])
	session, _ = strconv.Atoi(f[4])
	return ppid, session
}
