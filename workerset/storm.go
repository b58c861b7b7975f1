package workerset

import (
	"cmp"
	"slices"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file keeps a client that can make workers fail from stopping the service.

// failed acts on a cause that a worker reports.
func (s *Set) failed(in *incarnation, st wire.State) {
	canGoOn := st.Cause.Failure() && !st.Fatal && st.Nth > 0 && st.Phase == wire.PhaseServing && in.state.Serves()
	switch {
	case canGoOn && in.as.KeepFailed:
		s.tolerate(in, st)
		return
	case !canGoOn, !s.surelyServed(in), in.stale:
		s.blame(in, st.Cause, st.Reason)
		if st.Cause.Failure() && s.surelyServed(in) {
			s.charge(in)
		}
	case in.state == lifecycle.Serving && (in.paid || in.group.canSpend() && in.group.budget.Take(time.Now())):
		in.paid = true
		s.blame(in, st.Cause, st.Reason)
	default:
		s.tolerate(in, st)
		return
	}
	s.apply(in, lifecycle.Failed)
}

// tolerate lets a worker go on that has failed.
func (s *Set) tolerate(in *incarnation, st wire.State) {
	in.group.failures++
	in.forgiven, in.forgivenReason = st.Cause, st.Reason
	s.announceFault(in, st.Cause, st.Reason)
	if in.as.KeepFailed {
		s.logOf(in).Error("worker failed and goes on", "cause", string(st.Cause), "reason", st.Reason)
	}
	s.apply(in, lifecycle.Tolerated)
}

// charge takes the replacement of a worker that served from its group's budget. If
// there is nothing left, its slot waits.
func (s *Set) charge(in *incarnation) {
	g := in.group
	if in.paid || in.dismissed || s.stopping {
		return
	}
	in.paid = true
	if g.owing() || !g.budget.Take(time.Now()) {
		s.logOf(in).Warn("the group fails too often: a slot's next worker waits", "group", g.Name)
		g.slot(in.slot).owes = time.Now()
	}
}

// canSpend reports whether nobody has an older claim on the group's budget.
func (g *group) canSpend() bool {
	return !g.owing() && !slices.ContainsFunc(g.members, func(in *incarnation) bool { return in.state == lifecycle.Degraded && !in.stale })
}

// owing reports whether slots wait for the budget.
func (g *group) owing() bool {
	for _, sl := range g.slots {
		if !sl.owes.IsZero() {
			return true
		}
	}
	return false
}

// settleDebts lets the slots that wait for the budget have their next worker, as far
// as it goes, those first that have waited longest.
func (g *group) settleDebts() {
	var waiting []*slot
	for n, sl := range g.slots {
		switch {
		case sl.owes.IsZero():
		case n > g.Count:
			sl.owes = time.Time{} // nobody comes there
		default:
			waiting = append(waiting, sl)
		}
	}
	slices.SortFunc(waiting, func(a, b *slot) int { return cmp.Compare(a.owes.UnixNano(), b.owes.UnixNano()) })
	for _, sl := range waiting {
		if !g.budget.Take(time.Now()) {
			return
		}
		sl.owes = time.Time{}
	}
}
