package workerset

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/shortage"
	"github.com/handover-go/handover/internal/wire"
)

// This file carries out what package lifecycle decides.

// plan brings every group closer to what is wanted.
func (s *Set) plan() {
	if s.yielded || s.stopping {
		return
	}
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool { return g.dropped && len(g.members) == 0 })
	for _, g := range s.groups {
		if g.halted != nil && !slices.ContainsFunc(g.members, func(in *incarnation) bool { return in.stale && in.state.Serves() }) {
			g.halted = nil // nobody is left that the roll could go on with
		}
		g.settleDebts()
		for s.step(g) {
		}
		if s.turn(g) {
			for s.step(g) {
			}
		}
		if s.recycle(g) {
			for s.step(g) {
			}
		}
	}
}

// turn condemns the degraded workers whose turn it is to be replaced.
func (s *Set) turn(g *group) (changed bool) {
	if !s.committed || g.owing() {
		return false
	}
	for _, key := range s.due(g) {
		if !g.budget.Take(time.Now()) {
			break
		}
		in := g.member(key)
		in.paid = true
		in.cause, in.reason, in.blamedAt = in.forgiven, in.forgivenReason, time.Now() // it is counted already
		s.apply(in, lifecycle.Failed)
		changed = true
	}
	return changed
}

// step carries out one plan and reports whether it changed anything.
func (s *Set) step(g *group) bool {
	steps := lifecycle.Plan(g.view(), s.want(g))
	progress := false
	for _, key := range steps.Replaced {
		s.apply(g.member(key), lifecycle.Replaced)
		progress = true
	}
	for _, key := range steps.Retire {
		in := g.member(key)
		if s.holding && in.adopted && in.cause == "" {
			continue
		}
		s.dismiss(in)
		s.letGo(in)
		s.apply(in, lifecycle.Retire)
		fault.Point(fault.RollRetired)
		progress = true
	}
	for _, n := range steps.Spawn {
		if len(s.waitsFor(g)) > 0 || s.holding && g.staleServes(n) {
			continue
		}
		s.start(g, n)
		progress = true
	}
	return progress
}

func (s *Set) want(g *group) lifecycle.Want {
	count := g.Count
	if !s.committed {
		count = min(count, 1)
	}
	want := lifecycle.Want{Count: count, Surge: g.Surge, Halted: g.halted != nil}
	now := time.Now()
	for n, sl := range g.slots {
		if now.Before(sl.notBefore) || !sl.owes.IsZero() || !s.committed && sl.failures > 0 {
			want.Waits = append(want.Waits, n)
		}
	}
	return want
}

func (g *group) view() []lifecycle.Worker {
	ws, now := make([]lifecycle.Worker, len(g.members)), time.Now()
	for i, in := range g.members {
		ws[i] = lifecycle.Worker{
			ID: in.key, Slot: in.slot, State: in.state, Stale: in.stale, Released: in.released, Since: in.since,
			Silent: in.silent(), Worn: in.worn != "", Wear: in.wear(now),
		}
	}
	return ws
}

// start makes a new incarnation for a slot.
func (s *Set) start(g *group, n int) {
	in := &incarnation{
		group: g, key: s.nextKey(), id: g.nextID, slot: n, generation: s.cfg.Generation,
		state: lifecycle.Spawning, since: time.Now(), recipe: s.cfg.Recipe,
	}
	in.as = g.Group
	in.program = in.as.Program.Path != ""
	in.hungAfter = g.HungAfter
	g.nextID++
	g.members = append(g.members, in)
	s.byKey[in.key] = in
	if err := shortage.Explain(s.spawn(in)); err != nil {
		s.logOf(in).Error("worker could not be started", "error", err)
		s.blame(in, wire.CauseSpawn, err.Error())
		s.apply(in, lifecycle.SpawnFailed)
		s.announce(in, Event{Kind: EventClose})
		s.remove(in)
		return
	}
	s.apply(in, lifecycle.Spawned)
	s.offer(in)
	s.couldServe(in)
}

func (s *Set) remove(in *incarnation) {
	g := in.group
	g.members = slices.DeleteFunc(g.members, func(m *incarnation) bool { return m == in })
	delete(s.byKey, in.key)
	s.post.End(router.Peer(in.key), in.heard)
	s.forget(in)
	in.close()
}

// setBack makes a slot wait, later and later, after a worker that came to nothing.
func (s *Set) setBack(in *incarnation) {
	g, sl := in.group, in.group.slot(in.slot)
	sl.failures++
	sl.last = fmt.Errorf("worker %s: %s: %s", in.name(), in.cause, in.reason)
	wait := lifecycle.Backoff(sl.failures)
	sl.notBefore = time.Now().Add(wait)
	s.logOf(in).Warn("worker came to nothing, its slot waits", "wait", wait, "failures", sl.failures)
	s.stay(in)
	if !in.stale && g.staleServes(in.slot) {
		g.halted = fmt.Errorf("%w: %w", ErrRollStopped, sl.last)
		s.log.Error("the roll stops, the workers that were to be replaced go on serving", "group", g.Name, "error", g.halted)
	}
}

func (g *group) staleServes(slot int) bool {
	return slices.ContainsFunc(g.members, func(in *incarnation) bool {
		return in.slot == slot && in.stale && in.state.Serves()
	})
}

// apply is the one place where a worker's state changes.
func (s *Set) apply(in *incarnation, ev lifecycle.Event) {
	from := in.state
	next, effect := lifecycle.Next(from, ev)
	now := time.Now()
	if next != from {
		in.state, in.since = next, now
		if next == lifecycle.Draining && in.drainAt.IsZero() {
			in.drainAt = now
		}
		s.quick = false
	}
	if effect.Has(lifecycle.Disarm) {
		in.deadline = time.Time{}
	}
	if effect.Has(lifecycle.Arm) {
		in.deadline = now.Add(in.timeout())
	}
	if effect.Has(lifecycle.Ask) {
		in.tell(wire.Who{Cmd: wire.CmdWho})
	}
	if effect.Has(lifecycle.SendGo) {
		in.tell(wire.Order{Cmd: wire.CmdGo})
	}
	if next == lifecycle.Serving && from != next && !s.stopAt.IsZero() {
		in.tell(wire.Order{Cmd: wire.CmdStopping}) // it has come meanwhile
	}
	if effect.Has(lifecycle.SendHold) {
		in.tell(wire.Order{Cmd: wire.CmdHold})
	}
	if effect.Has(lifecycle.SendForgive) {
		in.tell(wire.Order{Cmd: wire.CmdForgive})
	}
	exit := effect.Has(lifecycle.SendExit)
	in.released = in.released || exit
	if effect.Has(lifecycle.SendDrain) && in.foreign() && !effect.Has(lifecycle.SignalTerm) {
		s.askToDrain(in)
	}
	if effect.Has(lifecycle.SendDrain) {
		s.tellMove(in) // first, so that it does not begin to close what it could give away
		// 0 ms would be the worker's own default.
		ms := max(1, in.as.DrainTimeout.Milliseconds())
		in.tell(wire.Drain{Cmd: wire.CmdDrain, TimeoutMS: ms, Exit: exit, Stop: s.stopping})
	} else if exit {
		in.tell(wire.Order{Cmd: wire.CmdExit})
	}
	if effect.Has(lifecycle.CloseChan) && in.conn != nil {
		in.conn.Close()
	}
	if effect.Has(lifecycle.SignalAbrt) {
		s.signal(in, syscall.SIGABRT)
	}
	if effect.Has(lifecycle.SignalTerm) {
		in.terminated = true
		s.signal(in, syscall.SIGTERM)
	}
	if effect.Has(lifecycle.SignalKill) {
		in.killed = true
		s.signal(in, syscall.SIGKILL)
	}
	if next != from && s.cfg.Observe != nil {
		s.cfg.Observe(Change{Worker: in.status(), From: from.String(), Restart: ev == lifecycle.Died && in.missed()})
	}
	if effect.Has(lifecycle.Report) && next != lifecycle.Exited {
		s.say(in, ev)
	}
}

// timeout is that of the state that in is in.
func (in *incarnation) timeout() time.Duration {
	switch in.state {
	case lifecycle.Starting:
		return in.as.StartTimeout
	case lifecycle.Draining:
		return in.as.DrainTimeout + drainGrace
	}
	return termTime
}

// say logs a change that somebody may want to know.
func (s *Set) say(in *incarnation, ev lifecycle.Event) {
	log := s.logOf(in)
	switch {
	case in.state == lifecycle.Serving && ev == lifecycle.Commit:
		log.Info("worker serves")
	case in.state == lifecycle.Serving:
		log.Debug("worker adopted")
	case ev == lifecycle.Tolerated && in.as.KeepFailed: // see tolerate
	case ev == lifecycle.Tolerated:
		log.Warn("worker failed and goes on, degraded: its group fails too often to replace it", "cause", string(in.report.Cause), "reason", in.report.Reason)
	case ev == lifecycle.Failed && !in.cause.Failure():
		log.Info("worker retires", "cause", string(in.cause))
	case ev == lifecycle.Failed:
		log.Error("worker failed, it is being replaced", "cause", string(in.cause), "reason", in.reason)
	case ev == lifecycle.Deadline:
		log.Warn("worker is late", "now", in.state.String())
	case ev == lifecycle.Hung:
		log.Warn("worker is hung, it is ended")
	default:
		log.Info("worker drains by itself", "event", ev.String())
	}
}
