package workerset

import (
	"time"

	"github.com/handover-go/handover/internal/memory"
)

// This file finds out how much memory workers have, as far as there is a limit. What
// answers, proc(5), may take its time; so it is not the loop that asks.

// gauge is when a group's workers are looked at.
type gauge struct {
	busy bool
	next time.Time
}

// gauged is the workers of a group that are looked at.
func (g *group) gauged() (list []*incarnation) {
	for _, in := range g.members {
		if in.limits.Memory > 0 && in.state.Serves() {
			list = append(list, in)
		}
	}
	return list
}

// nextLook is when they are looked at the next time; zero: nobody has to be, or that is
// being done.
func (g *group) nextLook() (t time.Time) {
	if !g.gauge.busy && len(g.gauged()) > 0 {
		t = g.gauge.next
	}
	return t
}

// look asks how much memory a group's workers have, if it is time.
func (s *Set) look(g *group, now time.Time) {
	list := g.gauged()
	if g.gauge.busy || len(list) == 0 || now.Before(g.gauge.next) {
		return
	}
	g.gauge.busy = true
	s.wg.Go(func() {
		sizes := make([]int64, len(list))
		errs := make([]error, len(list))
		for i, in := range list {
			sizes[i], errs[i] = memory.Of(in.proc.Pid, in.as.Recycle.kind())
			if errs[i] == nil {
				errs[i] = in.proc.Signal(0) // or it was another's, that has its pid
			}
		}
		done := func() {
			g.gauge = gauge{next: time.Now().Add(g.Heartbeat)}
			for i, in := range list {
				s.weigh(in, sizes[i], errs[i])
			}
		}
		select {
		case s.cmds <- done:
		case <-s.quit:
		}
	})
}

// weigh notes how much memory a worker has.
func (s *Set) weigh(in *incarnation, size int64, err error) {
	if err == nil {
		in.memory = size
		return
	}
	if !in.unweighed && in.state.Serves() && in.proc.Signal(0) == nil {
		in.unweighed = true // once is enough
		s.logOf(in).Warn("the memory of a worker can't be found out, so that it is not limited", "error", err)
	}
}
