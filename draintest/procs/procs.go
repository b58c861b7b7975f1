// Package procs looks at processes, on Linux, by /proc: what a test of a restart wants to
// know of a server. For how clients fare see package load.
package procs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ErrNotLinux is returned by the functions that look at processes on systems
// other than Linux, whose /proc they read.
var ErrNotLinux = errors.New("procs: looking at processes needs Linux")

// Process is one process as /proc shows it, see proc_pid_stat(5).
type Process struct {
	PID, PPID int
	State     byte     // R running, S sleeping, D waiting, T stopped, t traced, Z zombie; of a thread that lives, if there is one
	Comm      string   // name of the executable, at most 15 bytes
	Start     uint64   // ticks of the clock (1/100 s) from boot to its start: no other process has both this and PID
	Args      []string // command line; nil for a zombie, and from List
}

// String returns the process in one line.
func (p Process) String() string {
	cmd := strings.Join(p.Args, " ")
	if cmd == "" {
		cmd = "[" + p.Comm + "]"
	}
	return fmt.Sprintf("pid %d (parent %d, state %c) %s", p.PID, p.PPID, p.State, cmd)
}

// parseStat reads the line of /proc/PID/stat: "pid (comm) state ppid …". comm may
// hold anything, spaces, newlines and parentheses too.
func parseStat(line []byte) (Process, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return Process{}, fmt.Errorf("procs: no command in stat line %.80q", line)
	}
	rest := bytes.Fields(line[end+1:])
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	if err != nil || len(rest) < 2 || len(rest[0]) != 1 {
		return Process{}, fmt.Errorf("procs: not a stat line: %.80q", line)
	}
	ppid, err := strconv.Atoi(string(rest[1]))
	if err != nil {
		return Process{}, fmt.Errorf("procs: bad parent in stat line %.80q", line)
	}
	p := Process{PID: pid, PPID: ppid, State: rest[0][0], Comm: string(line[open+1 : end])}
	const start = 22 - 3 // rest begins with the third field
	if len(rest) > start {
		if p.Start, err = strconv.ParseUint(string(rest[start]), 10, 64); err != nil {
			return Process{}, fmt.Errorf("procs: bad start time in stat line %.200q", line)
		}
	}
	return p, nil
}

// parsePSS reads the proportional set size, in bytes, from /proc/PID/smaps_rollup: the
// line "Pss:    1234 kB".
func parsePSS(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			kb, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 53)
			if err != nil || kb < 0 {
				return 0, fmt.Errorf("procs: bad line in smaps_rollup: %.80q", line)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("procs: no Pss in smaps_rollup")
}

// A tcpSocket is one line of /proc/net/tcp or tcp6, see proc_pid_net(5).
type tcpSocket struct {
	local  netip.AddrPort
	remote netip.AddrPort // IPv4 in IPv6 is unmapped, as net prints it
	state  uint64         // TCP_ESTABLISHED is 1
	inode  string         // "0" for one that is in an accept queue
}

const (
	tcpEstablished = 1
	tcpListen      = 10
)

// parseTCP reads "sl: local remote st tx:rx tr:when retrnsmt uid timeout inode …".
func parseTCP(line string) (tcpSocket, error) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return tcpSocket{}, fmt.Errorf("procs: not a line of /proc/net/tcp: %.120q", line)
	}
	local, err := parseHexAddr(f[1])
	if err != nil {
		return tcpSocket{}, err
	}
	remote, err := parseHexAddr(f[2])
	if err != nil {
		return tcpSocket{}, err
	}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if err != nil {
		return tcpSocket{}, fmt.Errorf("procs: bad TCP state %.20q", f[3])
	}
	return tcpSocket{local: local, remote: remote, state: state, inode: f[9]}, nil
}

// parseHexAddr reads "0100007F:1F90": words of 32 bits as this machine holds
// them, each of which is in network order in memory.
func parseHexAddr(s string) (netip.AddrPort, error) {
	bad := fmt.Errorf("procs: not an address of /proc/net/tcp: %.60q", s)
	host, portHex, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portHex, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, bad
	}
	ip := make([]byte, 0, 16)
	for ; host != ""; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, bad
		}
		ip = binary.NativeEndian.AppendUint32(ip, uint32(word))
	}
	addr, _ := netip.AddrFromSlice(ip) // 4 or 16 bytes
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}
