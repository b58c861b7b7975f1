package workerset

import (
	"slices"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file tells the workers about the service: that all of it is ready, and who those
// are whom others wait for, such as an agent.

// now is what there is to tell.
func (s *Set) now() wire.Service {
	sv := wire.Service{Cmd: wire.CmdService, Generation: s.cfg.Generation, Ready: s.complete}
	for _, g := range s.groups {
		if g.dropped || !s.waitedFor(g) {
			continue
		}
		for _, in := range g.members {
			if in.state.Serves() && !in.stale && in.state != lifecycle.Condemned {
				sv.Helpers = append(sv.Helpers, wire.Helper{Group: g.Name, Slot: in.slot, ID: in.id, Generation: in.generation, Pid: in.pid()})
			}
		}
	}
	return sv
}

// waitedFor: a group goes after g.
func (s *Set) waitedFor(g *group) bool {
	return slices.ContainsFunc(s.groups, func(o *group) bool { return slices.Contains(o.After, g.Name) })
}

// tellService tells whoever does not know yet. It is said whole at every change, so
// that it does no harm if some of it does not arrive.
func (s *Set) tellService() {
	if s.yielded || !s.committed || s.stopping {
		return
	}
	if !s.complete {
		s.complete = !slices.ContainsFunc(s.groups, func(g *group) bool { return !g.settled(s) })
	}
	if now := s.now(); s.said == 0 || now.Ready != s.service.Ready || !slices.Equal(now.Helpers, s.service.Helpers) {
		s.service = now
		s.said++
	}
	for _, g := range s.groups {
		for _, in := range g.members {
			if in.greeted && in.knows != s.said && in.out != nil && !in.deaf && in.out.Urge(s.service) == nil {
				in.knows = s.said
			}
		}
	}
}
