package workerset

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file is about what programs in other languages say on their channel, in the way
// of Node's child_process.

// hear takes in a message of a foreign program. It owns the file that came with it, if
// one has.
func (s *Set) hear(in *incarnation, cmd string, line []byte, files []*os.File) {
	var file *os.File
	switch {
	case len(files) > 0: // Node sends nothing more before it is acknowledged
		file = files[0]
		in.handouts.acks++
		s.hand(in)
	case cmd == wire.CmdNodeHandle:
		in.tell(wire.Order{Cmd: wire.CmdNodeHandleNack})
	}
	switch cmd {
	case wire.CmdNodeHandle:
		var h wire.NodeHandle
		if file == nil {
			return // it is sent again
		}
		if err := json.Unmarshal(line, &h); err != nil {
			s.logOf(in).Debug("a program's handle can't be understood", "error", err)
			file.Close()
			return
		}
		s.programSays(in, h.Msg, file, h.Type)
	case wire.CmdNodeHandleAck:
		s.arrived(in)
	case wire.CmdNodeHandleNack:
		s.notArrived(in)
	case wire.CmdNodeNotifyClose, wire.CmdNodeGetCount:
		// Whoever has a connection now serves it as its own. Without an answer the server
		// that it was accepted by would never be closed.
		var m wire.NodeSockets
		if json.Unmarshal(line, &m) == nil {
			answer := map[string]string{wire.CmdNodeNotifyClose: wire.CmdNodeAllClosed, wire.CmdNodeGetCount: wire.CmdNodeCount}
			s.reply(in, wire.NodeSockets{Cmd: answer[cmd], Key: m.Key}, "")
		}
	case wire.CmdNodeCluster:
		var q wire.ClusterQuery
		if err := json.Unmarshal(line, &q); err != nil {
			s.logOf(in).Debug("a program's message to cluster can't be understood", "error", err)
			return
		}
		s.clusterSays(in, q)
	default:
		var m struct {
			Act string `json:"act"`
		}
		switch {
		case strings.HasPrefix(cmd, "NODE_"): // Node's own
		case cmd == "" && json.Unmarshal(line, &m) == nil && m.Act == "suicide":
			s.suicide(in)
		default:
			s.programSays(in, line, nil, "")
		}
	}
}

// suicide acts on {"act":"suicide"}: something has gone wrong in the program, and it
// will go as soon as it has finished what it has. Its replacement is started at once.
// What it does about its own end is its affair, so that nobody asks it to drain.
func (s *Set) suicide(in *incarnation) {
	s.afterNotes(in, func() {
		if in.cause != "" || in.dismissed {
			return
		}
		in.asked = true
		in.showed = !in.readyAt.IsZero()
		s.failed(in, wire.State{Cause: wire.CauseError, Reason: `it says so itself ({"act":"suicide"})`, Fatal: true})
	})
}

// disconnected: a program has closed its channel. One of cluster that drains does so when
// its servers and their connections have ended. What else it has open would keep it
// alive, so it gets the signal that others get at first.
func (s *Set) disconnected(in *incarnation) {
	if in.online && in.state == lifecycle.Draining {
		in.asked = true
		s.signal(in, in.as.DrainSignal)
	}
}

// askToDrain asks a foreign worker to drain, once: to many programs a second signal
// means "at once".
func (s *Set) askToDrain(in *incarnation) {
	if in.asked {
		return
	}
	in.asked = true
	if !in.online || in.deaf || in.out.Urge(wire.ClusterReply{Cmd: wire.CmdNodeCluster, Act: "disconnect"}) != nil {
		s.signal(in, in.as.DrainSignal)
	}
}

// hushed stops the reading of a program's channel. What was read is acted on, while that
// is possible: a program does not say it again.
func (s *Set) hushed(in *incarnation) {
	if !in.program || in.conn == nil {
		return
	}
	in.rest = in.out.Halt()
	res, err := in.conn.Halt()
	if err != nil {
		return // it has been closed, or failed
	}
	in.residue = &res
	s.quiet(in.reader)
	if in.deaf { // by now, and it may be closed
		res.Close()
		in.residue = nil
	}
}
