package workerset

import (
	"slices"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file decides which way connections move: from workers that drain to those that
// stay.

// toldUnknown: another parent may have told it something.
const toldUnknown wire.Move = "?"

// move is a worker's part, given that of the others: its group's, and the set stops or
// not. None, "", is for one of which it is not known yet.
func (in *incarnation) move(stopping bool) wire.Move {
	switch {
	case in.foreign() || in.state < lifecycle.Serving || in.state == lifecycle.Exited:
		return ""
	case stopping:
		return wire.MoveTake // nobody stays: nothing is given away, and what is queued is served
	case in.state.Accepts() && !in.saysServing():
		return "" // it does not accept yet, or is another parent's, and may drain
	case in.takes() && in.group.Count == 1:
		return wire.MoveTake // of more, each shares in time for those that will come
	case in.takes():
		return wire.MoveShare
	case in.state.Accepts():
		return wire.MoveStay
	case in.group.takers() == 0:
		return wire.MoveKeep
	case in.group.takers() < in.group.Count && in.group.halted == nil && time.Since(in.since) < gatherTime:
		return wire.MoveKeep
	}
	return wire.MoveGive
}

// gatherTime is how long a draining worker keeps its connections when not all that may
// take them serve: those that came first would get them all, and keep them.
const gatherTime = time.Second

// gathers is when the worker stops waiting for others who may take its connections.
func (in *incarnation) gathers() (t time.Time) {
	if in.told == wire.MoveKeep && in.group.takers() > 0 {
		t = in.since.Add(gatherTime)
	}
	return t
}

// takers counts the workers to which connections may move.
func (g *group) takers() (n int) {
	for _, in := range g.members {
		if in.takes() {
			n++
		}
	}
	return n
}

// takes reports whether connections may move to it: it stays for some time. An old
// worker takes none once a new one serves, so that they do not move again and again
// while a group is rolled, nor does one that has reached a limit.
func (in *incarnation) takes() bool {
	if !in.saysServing() || in.state != lifecycle.Serving && in.state != lifecycle.Degraded {
		return false
	}
	return !in.goes() || !slices.ContainsFunc(in.group.members, func(m *incarnation) bool {
		return !m.goes() && m.saysServing() && m.state == lifecycle.Serving
	})
}

// goes: it will be replaced, well as it is.
func (in *incarnation) goes() bool { return in.stale || in.worn != "" }

// saysServing: told to serve, it does. Before that, others would be quicker and take
// all.
func (in *incarnation) saysServing() bool {
	return !in.foreign() && in.report.Phase == wire.PhaseServing
}

// moves tells the workers their parts, as far as they have changed: first those that
// take, so that they are ready to share.
func (s *Set) moves() {
	if s.yielded {
		return
	}
	for _, g := range s.groups {
		for _, takes := range []bool{true, false} {
			for _, in := range g.members {
				if in.takes() == takes {
					s.tellMove(in)
				}
			}
		}
	}
}

func (s *Set) tellMove(in *incarnation) {
	m := in.move(s.stopping)
	if m == "" || m == in.told || len(in.group.Queues) == 0 {
		return
	}
	if m == wire.MoveShare && in.told == "" {
		in.told = m // what it does anyway
		return
	}
	in.told = m
	in.tell(wire.Moves{Cmd: wire.CmdMoves, Do: m})
}
