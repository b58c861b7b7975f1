package workerset

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file is the parent of programs that use Node's cluster: they ask for what they
// listen on.

// maxCommon bounds what workers of cluster can have in common, in bytes. Keys of TLS
// tickets have less than 100.
const maxCommon = 1024

// clusterSays answers a worker of cluster.
func (s *Set) clusterSays(in *incarnation, q wire.ClusterQuery) {
	switch q.Act {
	case "online":
		in.online = true
	case "queryServer":
		s.answerListen(in, q)
	case "listening":
		in.said = true
		s.couldServe(in)
	case "exitedAfterDisconnect": // it waits for the answer, and goes
		s.afterNotes(in, func() {
			if !in.dismissed {
				s.blame(in, wire.CauseRetire, "it disconnects")
				s.apply(in, lifecycle.Leaving)
			}
			in.asked = true
			s.reply(in, wire.ClusterReply{Cmd: wire.CmdNodeCluster, Ack: q.Seq}, "")
		})
	}
}

// answerListen gives a worker the socket that it asks for.
func (s *Set) answerListen(in *incarnation, q wire.ClusterQuery) {
	reply := wire.ClusterReply{Cmd: wire.CmdNodeCluster, Ack: q.Seq}
	sockets := s.bounds(in)
	b, ok := fit(q, sockets)
	if !ok {
		var have []string
		for _, b := range sockets {
			have = append(have, b.String())
		}
		s.logOf(in).Warn("a program wants to listen where this service does not",
			"on", asked(q), "sockets", strings.Join(have, ","))
		reply.Errno = -int(unix.EADDRNOTAVAIL)
		s.reply(in, reply, "")
		return
	}
	reply.Key = fmt.Sprintf("%s:%s:%d", b.name, asked(q), q.Index)
	// The first one's is everybody's: with it a client of one worker can resume its TLS
	// session at another.
	if reply.Data = in.group.common[b.name]; reply.Data == nil && len(q.Data) > 0 && len(q.Data) <= maxCommon && string(q.Data) != "null" {
		in.group.common[b.name], reply.Data = q.Data, q.Data
	}
	typ := wire.NodeNative
	if b.kind == "udp" {
		typ = wire.NodeNativePacket
	}
	msg, err := json.Marshal(reply)
	if err != nil {
		return // cannot be: it is made of JSON
	}
	s.reply(in, wire.NodeHandle{Cmd: wire.CmdNodeHandle, Type: typ, Msg: msg}, b.name)
}

// reply answers, or gives up a program that asks more than it takes.
func (s *Set) reply(in *incarnation, line any, socket string) {
	if !s.handOut(in, line, socket, false) {
		s.garbage(in, fmt.Errorf("it asks for more sockets than it takes: %d wait", len(in.handouts.queue)))
	}
}

// bound is a socket and what it is bound to.
type bound struct {
	name, kind string // kind is "tcp", "unix", "udp" or "", which Node has no use for
	addr       netip.AddrPort
	path       string // of a unix socket
}

func (b bound) String() string {
	at := b.path
	if at == "" {
		at = b.addr.String()
	}
	return fmt.Sprintf("%s=%s://%s", b.name, b.kind, at)
}

// bounds are a worker's sockets in their order.
func (s *Set) bounds(in *incarnation) (list []bound) {
	for _, name := range in.as.socketsOf(in.slot) {
		list = append(list, boundTo(name, s.cfg.Sockets[name]))
	}
	return list
}

func boundTo(name string, fd int) bound {
	b := bound{name: name}
	sa, err := unix.Getsockname(fd)
	typ, terr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || terr != nil {
		return b
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		b.addr = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		b.addr = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	case *unix.SockaddrUnix:
		if typ == unix.SOCK_STREAM && listens != 0 {
			b.kind, b.path = "unix", absolute(a.Name)
		}
		return b
	}
	switch {
	case !b.addr.IsValid():
	case typ == unix.SOCK_STREAM && listens != 0:
		b.kind = "tcp"
	case typ == unix.SOCK_DGRAM:
		b.kind = "udp"
	}
	return b
}

// absolute is a unix socket's path as Node writes it.
func absolute(path string) string {
	if rest, ok := strings.CutPrefix(path, "@"); ok {
		return "\x00" + rest // abstract (unix(7))
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// fit is the socket that a program asks for: the one that it has as that descriptor, or
// is bound to that address. One who wants every address gets what there is with that
// port, rather what is bound to every one, too; who wants any port, the first that
// there is, then the second.
func fit(q wire.ClusterQuery, sockets []bound) (bound, bool) {
	if q.Fd != nil && *q.Fd >= 0 {
		if i := *q.Fd - 3; i >= 0 && i < len(sockets) && sockets[i].kind != "" {
			return sockets[i], true
		}
		return bound{}, false
	}
	kind := kindOf(q)
	var fits []bound
	for _, b := range sockets {
		switch {
		case b.kind != kind:
		case kind == "unix":
			if q.Address != nil && b.path == *q.Address {
				return b, true
			}
		case kind == "udp" && b.addr.Addr().Is4() != (family(q) == "udp4"):
		case q.Port != 0 && int(b.addr.Port()) != q.Port:
		case everywhere(q):
			if q.Port != 0 && b.addr.Addr().IsUnspecified() {
				return b, true
			}
			fits = append(fits, b)
		case addrOf(q) == b.addr.Addr().WithZone("").Unmap():
			fits = append(fits, b)
		}
	}
	i := 0
	if q.Port == 0 {
		i = q.Index
	}
	if i < 0 || i >= len(fits) {
		return bound{}, false
	}
	return fits[i], true
}

func family(q wire.ClusterQuery) (s string) {
	_ = json.Unmarshal(q.AddressType, &s) // a number, of TCP, is no string
	return s
}

func kindOf(q wire.ClusterQuery) string {
	switch {
	case q.Port < 0:
		return "unix"
	case strings.HasPrefix(family(q), "udp"):
		return "udp"
	}
	return "tcp"
}

// addrOf is the address asked for; not valid where it is none.
func addrOf(q wire.ClusterQuery) netip.Addr {
	if q.Address == nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(*q.Address)
	return a.WithZone("").Unmap()
}

func everywhere(q wire.ClusterQuery) bool {
	return q.Address == nil || *q.Address == "" || addrOf(q).IsUnspecified()
}

// asked is what a program wants, for people and to tell it from what else it wants.
func asked(q wire.ClusterQuery) string {
	at := ""
	if q.Address != nil {
		at = (*q.Address)[:min(len(*q.Address), 128)]
	}
	switch {
	case q.Fd != nil && *q.Fd >= 0:
		return fmt.Sprintf("descriptor %d", *q.Fd)
	case q.Port < 0:
		return "unix://" + at
	}
	return fmt.Sprintf("%s://%s:%d", kindOf(q), at, q.Port)
}
