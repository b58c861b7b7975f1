package workerset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// Errors of a set's methods.
var (
	// ErrEnded: the set has stopped, or was given away.
	ErrEnded = errors.New("workerset: the set has ended")
	// ErrNoGroup: there is no group of that name.
	ErrNoGroup = errors.New("workerset: no such group")
	// ErrRollStopped: a replacement could not start; the workers that were to be
	// replaced go on serving.
	ErrRollStopped = errors.New("workerset: the roll stopped half way")
)

// Set is a running set of workers. Its methods may be called from any goroutine,
// while Run runs.
type Set struct {
	cfg    Config
	log    *slog.Logger
	events chan event
	cmds   chan func()
	quit   chan struct{} // closed when the loop ends
	wg     sync.WaitGroup

	// Everything below belongs to the loop.
	groups    []*group
	committed bool
	stopping  bool
	yielded   bool
	over      bool    // given away: end without a word to the workers
	held      []event // while yielded
	waiters   []*waiter
	report    Report
	lastKey   int
}

func (s *Set) nextKey() int {
	s.lastKey++
	return s.lastKey
}

type group struct {
	Group
	configured int // Count as it was configured
	members    []*incarnation
	nextID     int
	slots      map[int]*slot
	halted     error // why a roll stopped
	restarts   int
	failures   int
	// lastFailure is why the last worker that came to nothing did.
	lastFailure error
}

// slot is what has to be remembered of a slot between two incarnations.
type slot struct {
	failures  int // starts in a row that came to nothing
	notBefore time.Time
}

// waiter is a method call that waits for something to become true.
type waiter struct {
	cond func() (bool, error)
	done chan error
}

// Report sums up how a set stopped.
type Report struct {
	Exited     int // workers that went by themselves
	Terminated int // workers that did not drain in time and got SIGTERM
	Killed     int // of these, those that got SIGKILL
	Cut        int // connections that were cut because the drain's time was up
}

// New checks a configuration and makes a set of it. Nothing is started before
// Run.
func New(cfg Config) (*Set, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Set{
		cfg:       cfg,
		log:       cfg.Logger,
		events:    make(chan event),
		cmds:      make(chan func()),
		quit:      make(chan struct{}),
		committed: !cfg.Trial,
	}
	for _, g := range cfg.Groups {
		s.groups = append(s.groups, newGroup(g))
	}
	return s, nil
}

func newGroup(g Group) *group {
	return &group{Group: g, configured: g.Count, nextID: 1, slots: map[int]*slot{}}
}

// Run starts the workers and keeps them, until Stop or Abandon. Call it once.
func (s *Set) Run() error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.plan()
	for !s.ended() {
		s.wake()
		timer.Reset(time.Until(s.nextDeadline()))
		select {
		case fn := <-s.cmds:
			fn()
		case ev := <-s.events:
			s.handle(ev)
		case <-timer.C:
		}
		s.deadlines()
		s.plan()
	}
	close(s.quit)
	for _, g := range s.groups {
		for _, in := range g.members {
			in.close()
		}
	}
	s.wg.Wait()
	s.wake()
	for _, w := range s.waiters {
		w.done <- ErrEnded
	}
	return nil
}

func (s *Set) ended() bool {
	if s.over {
		return true
	}
	if !s.stopping {
		return false
	}
	for _, g := range s.groups {
		if len(g.members) > 0 {
			return false
		}
	}
	return true
}

// handle takes in what an incarnation's goroutines report.
func (s *Set) handle(ev event) {
	if s.yielded {
		s.held = append(s.held, ev)
		return
	}
	in := ev.in
	switch {
	case in.state == lifecycle.Exited:
	case ev.died:
		s.died(in, ev)
	case ev.lost == io.EOF || errors.Is(ev.lost, syscall.ECONNRESET):
		s.apply(in, lifecycle.Lost)
	case ev.lost != nil:
		s.garbage(in, ev.lost)
	default:
		s.message(in, ev.line)
	}
}

func (s *Set) garbage(in *incarnation, err error) {
	if in.cause == "" {
		in.cause, in.reason = wire.CauseChannel, err.Error()
	}
	s.log.Error("worker sent garbage, its channel is closed", "worker", in.name(), "pid", in.pid(), "error", err)
	in.group.failures++
	s.apply(in, lifecycle.Lost)
}

// message takes in one line of a worker.
func (s *Set) message(in *incarnation, line []byte) {
	cmd, err := wire.Cmd(line)
	var bad *wire.BadMessageError
	if errors.As(err, &bad) && bad.JSON {
		err = nil // valid JSON that is no object: a message of the program's own
	}
	if err == nil && in.conn.Pending() > 0 {
		err = fmt.Errorf("%d descriptors that no message announced", in.conn.Pending())
	}
	var st wire.State
	if err == nil && cmd == wire.CmdState {
		if err = json.Unmarshal(line, &st); err == nil {
			s.observe(in, st)
		}
	}
	if err != nil {
		s.garbage(in, err)
	}
}

// observe derives the events from what a worker says of itself. It may have left
// out steps: what it says is its state, not what happened.
func (s *Set) observe(in *incarnation, st wire.State) {
	in.report, in.told = st, true
	if st.Cause != "" && in.cause == "" && !s.letGo(in) {
		in.cause, in.reason = st.Cause, st.Reason
		if st.Cause.Failure() {
			in.group.failures++
		}
		s.apply(in, lifecycle.Failed)
	}
	switch st.Phase {
	case wire.PhaseReady, wire.PhaseServing:
		if in.state == lifecycle.Starting {
			in.readyAt = time.Now()
			s.apply(in, lifecycle.Ready)
			if s.committed {
				s.apply(in, lifecycle.Commit)
			}
		}
	case wire.PhaseDraining:
		s.apply(in, lifecycle.Leaving)
	case wire.PhaseDrained:
		s.apply(in, lifecycle.Drained)
	}
}

// letGo reports whether the worker's end was decided here.
func (s *Set) letGo(in *incarnation) bool {
	return in.cause == "" && (in.state == lifecycle.Draining || in.state > lifecycle.Draining)
}

// died is the end of an incarnation.
func (s *Set) died(in *incarnation, ev event) {
	now := time.Now()
	never := in.readyAt.IsZero()
	expected := s.letGo(in)
	if in.cause == "" && !expected {
		in.reason = ev.status.String()
		switch {
		case never:
			in.cause = wire.CauseStartExit
		case ev.status.Signal != 0:
			in.cause = wire.CauseSignal
		default:
			in.cause = wire.CauseExit
		}
		in.group.failures++
	}
	if !expected {
		in.group.restarts++
	}
	s.report.Exited++
	s.report.Cut += in.report.Cut
	s.apply(in, lifecycle.Died)
	s.logExit(in, ev.status)
	if !expected {
		nobody := in.report.Served == 0 && in.cause != wire.CauseSignal && now.Sub(in.readyAt) < time.Second
		s.slotFailed(in, never || nobody, now)
	}
	s.remove(in)
}

func (s *Set) logExit(in *incarnation, status launch.Status) {
	level := slog.LevelInfo
	attrs := []any{"worker", in.name(), "id", in.id, "pid", in.pid(), "generation", in.generation, "status", status.String()}
	if in.cause != "" {
		attrs = append(attrs, "cause", string(in.cause), "reason", in.reason)
	}
	if in.report.Cut > 0 {
		attrs = append(attrs, "cut", in.report.Cut)
	}
	if in.cause.Failure() {
		level = slog.LevelError
	}
	s.log.Log(context.Background(), level, "worker exited", attrs...)
}

// resetAfter is how long a worker has to have been up for its slot's failures to
// be forgotten.
const resetAfter = 30 * time.Second

// slotFailed decides when a slot may have its next worker: at once after one that has
// served, later and later after ones that came to nothing.
func (s *Set) slotFailed(in *incarnation, nothing bool, now time.Time) {
	sl := in.group.slot(in.slot)
	if !nothing {
		if now.Sub(in.readyAt) >= resetAfter {
			sl.failures = 0
		}
		return
	}
	sl.failures++
	in.group.lastFailure = fmt.Errorf("%s: %s", in.cause, in.reason)
	wait := lifecycle.Backoff(sl.failures)
	sl.notBefore = now.Add(wait)
	s.log.Warn("worker came to nothing, its slot waits", "worker", in.name(), "wait", wait, "failures", sl.failures)
	if !in.stale && in.group.staleServes(in.slot) {
		in.group.halted = fmt.Errorf("%w: worker %s: %s: %s", ErrRollStopped, in.name(), in.cause, in.reason)
		s.log.Error("the roll stops, the workers that were to be replaced go on serving", "group", in.group.Name, "error", in.group.halted)
	}
}

func (g *group) slot(n int) *slot {
	if g.slots[n] == nil {
		g.slots[n] = &slot{}
	}
	return g.slots[n]
}

func (g *group) staleServes(slot int) bool {
	for _, in := range g.members {
		if in.slot == slot && in.stale && in.state.Serves() {
			return true
		}
	}
	return false
}

func (s *Set) remove(in *incarnation) {
	g := in.group
	for i, m := range g.members {
		if m == in {
			g.members = append(g.members[:i], g.members[i+1:]...)
			break
		}
	}
	in.close()
}

// apply is the one place where a worker's state changes.
func (s *Set) apply(in *incarnation, ev lifecycle.Event) {
	from := in.state
	next, effect := lifecycle.Next(from, ev)
	now := time.Now()
	if next != from {
		in.state, in.since = next, now
	}
	if effect.Has(lifecycle.Disarm) {
		in.deadline = time.Time{}
	}
	if effect.Has(lifecycle.Arm) {
		in.deadline = now.Add(in.timeout())
	}
	if effect.Has(lifecycle.Ask) {
		in.tell(wire.Order{Cmd: wire.CmdWho})
	}
	if effect.Has(lifecycle.SendGo) {
		in.tell(wire.Order{Cmd: wire.CmdGo})
	}
	if effect.Has(lifecycle.SendHold) {
		in.tell(wire.Order{Cmd: wire.CmdHold})
	}
	exit := effect.Has(lifecycle.SendExit)
	in.released = in.released || exit
	if effect.Has(lifecycle.SendDrain) {
		in.tell(wire.Drain{Cmd: wire.CmdDrain, TimeoutMS: in.group.DrainTimeout.Milliseconds(), Exit: exit, Stop: s.stopping})
	} else if exit {
		in.tell(wire.Order{Cmd: wire.CmdExit})
	}
	if effect.Has(lifecycle.CloseChan) && in.conn != nil {
		in.conn.Close()
	}
	if effect.Has(lifecycle.SignalAbrt) {
		in.signal(syscall.SIGABRT)
	}
	if effect.Has(lifecycle.SignalTerm) {
		s.report.Terminated++
		in.signal(syscall.SIGTERM)
	}
	if effect.Has(lifecycle.SignalKill) {
		s.report.Killed++
		in.signal(syscall.SIGKILL)
	}
	if next != from && s.cfg.Observe != nil {
		s.cfg.Observe(Change{Worker: in.status(), From: from.String()})
	}
	if effect.Has(lifecycle.Report) && next != lifecycle.Exited {
		s.say(in, ev)
	}
}

// timeout is that of the state that in is in.
func (in *incarnation) timeout() time.Duration {
	switch in.state {
	case lifecycle.Starting:
		return in.group.StartTimeout
	case lifecycle.Draining:
		return in.group.DrainTimeout + drainGrace
	}
	return termTime
}

// say logs a change that somebody may want to know.
func (s *Set) say(in *incarnation, ev lifecycle.Event) {
	attrs := []any{"worker", in.name(), "id", in.id, "pid", in.pid(), "generation", in.generation}
	switch {
	case in.state == lifecycle.Serving && ev == lifecycle.Commit:
		s.log.Info("worker serves", attrs...)
	case in.state == lifecycle.Serving:
		s.log.Debug("worker adopted", attrs...)
	case ev == lifecycle.Failed && !in.cause.Failure():
		s.log.Info("worker retires", append(attrs, "cause", string(in.cause))...)
	case ev == lifecycle.Failed:
		s.log.Error("worker failed, it is being replaced", append(attrs, "cause", string(in.cause), "reason", in.reason)...)
	case ev == lifecycle.Deadline:
		s.log.Warn("worker is late", append(attrs, "now", in.state.String())...)
	default:
		s.log.Info("worker "+in.state.String(), append(attrs, "event", ev.String())...)
	}
}

// deadlines fires those that have passed.
func (s *Set) deadlines() {
	if s.yielded {
		return
	}
	now := time.Now()
	for _, g := range s.groups {
		for _, in := range g.members {
			if in.deadline.IsZero() || now.Before(in.deadline) {
				continue
			}
			in.deadline = time.Time{}
			if in.state == lifecycle.Starting {
				in.cause, in.reason = wire.CauseStartTimeout, fmt.Sprintf("not ready after %v", g.StartTimeout)
				g.failures++
			}
			s.apply(in, lifecycle.Deadline)
		}
	}
}

// nextDeadline is when the loop has to look again, at the latest.
func (s *Set) nextDeadline() time.Time {
	next := time.Now().Add(time.Hour)
	if s.yielded {
		return next
	}
	for _, g := range s.groups {
		for _, in := range g.members {
			if !in.deadline.IsZero() && in.deadline.Before(next) {
				next = in.deadline
			}
		}
		for _, sl := range g.slots {
			if sl.notBefore.After(time.Now()) && sl.notBefore.Before(next) {
				next = sl.notBefore
			}
		}
	}
	return next
}

// plan brings every group closer to what is wanted.
func (s *Set) plan() {
	if s.yielded || s.stopping {
		return
	}
	for _, g := range s.groups {
		for s.step(g) {
		}
	}
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
		s.apply(g.member(key), lifecycle.Retire)
		progress = true
	}
	for _, n := range steps.Spawn {
		sl := g.slot(n)
		if time.Now().Before(sl.notBefore) || !s.committed && sl.failures > 0 {
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
	return lifecycle.Want{Count: count, Surge: g.Surge, Halted: g.halted != nil}
}

func (g *group) view() []lifecycle.Worker {
	ws := make([]lifecycle.Worker, len(g.members))
	for i, in := range g.members {
		ws[i] = lifecycle.Worker{ID: in.key, Slot: in.slot, State: in.state, Stale: in.stale, Released: in.released}
	}
	return ws
}

func (g *group) member(key int) *incarnation {
	for _, in := range g.members {
		if in.key == key {
			return in
		}
	}
	panic(fmt.Sprintf("workerset: no worker with key %d in group %q", key, g.Name)) // Plan names only what it was shown
}

// start makes a new incarnation for a slot.
func (s *Set) start(g *group, n int) {
	in := &incarnation{
		group: g, key: s.nextKey(), id: g.nextID, slot: n, generation: s.cfg.Generation,
		state: lifecycle.Spawning, since: time.Now(),
	}
	g.nextID++
	g.members = append(g.members, in)
	if err := s.spawn(in); err != nil {
		in.cause, in.reason = wire.CauseSpawn, err.Error()
		g.failures++
		s.log.Error("worker could not be started", "worker", in.name(), "error", err)
		s.apply(in, lifecycle.SpawnFailed)
		s.slotFailed(in, true, time.Now())
		s.remove(in)
		return
	}
	s.apply(in, lifecycle.Spawned)
}
