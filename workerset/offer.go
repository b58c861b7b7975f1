package workerset

import (
	"encoding/json"

	"github.com/handover-go/handover/internal/wire"
)

// Offer is a further way in which a program gets its sockets. It has them as descriptors
// 3 and up in any case.
type Offer int

const (
	OfferNone Offer = iota
	// OfferMessage: the first messages on its channel bring them, one socket each, the
	// way a Node program sends a server to its child: child.send(NAME, server). In Node,
	// process.on('message', (name, server) => …) gets the socket's name and a net.Server
	// that listens, or a dgram.Socket. By default the program counts as ready when it has
	// taken all of them.
	OfferMessage
)

// offer sends a new worker its sockets.
func (s *Set) offer(in *incarnation) {
	if in.as.Offer != OfferMessage {
		return
	}
	for _, b := range s.bounds(in) {
		h := wire.NodeHandle{Cmd: wire.CmdNodeHandle, Type: wire.NodeServer}
		if b.kind == "udp" {
			h.Type, h.DgramType = wire.NodeDatagrams, "udp6"
			if b.addr.Addr().Is4() {
				h.DgramType = "udp4"
			}
		}
		h.Msg, _ = json.Marshal(b.name) // of a string that can't fail
		s.handOut(in, h, b.name, true)
	}
}

// checkNode says what Node can't be given, of sockets of those kinds.
func (g *Group) checkNode(f *faults, kind func(name string) string) {
	if g.NodeChannel < NodeAuto || g.NodeChannel > NodeCluster {
		f.add("NodeChannel", "node channel %d: unknown", g.NodeChannel)
		return
	}
	field := "Offer"
	if g.Offer == OfferNone {
		field = "NodeChannel"
	}
	switch {
	case g.Offer < OfferNone || g.Offer > OfferMessage:
		f.add(field, "offer %d: unknown", g.Offer)
	case g.Offer == OfferNone && g.NodeChannel != NodeCluster:
	case g.Program.Path == "":
		f.add(field, "sockets are offered to a program with a path: workers of this binary have them")
	case g.Offer == OfferNone:
	case g.NodeChannel == NodeNo:
		f.add(field, "sockets are offered on the channel of Node, which the program does not get")
	case len(g.Sockets) > maxHandouts:
		f.add(field, "%d sockets: at most %d can be offered", len(g.Sockets), maxHandouts)
	default:
		for _, name := range g.socketsOf(1) { // those of other slots are alike
			if k := kind(name); k != "tcp" && k != "udp" && k != "unix" {
				f.add(field, "socket %q: only sockets of tcp, udp and unix can be offered to Node", name)
			}
		}
	}
}

// nodeTakes reports whether the group's programs say when they have got their sockets,
// so that having been alive for a time tells nothing.
func (g *Group) nodeTakes() bool { return g.Offer == OfferMessage || g.NodeChannel == NodeCluster }
