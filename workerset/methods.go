package workerset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// do runs fn in the loop.
func (s *Set) do(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	select {
	case s.cmds <- func() { fn(); close(done) }:
		<-done
		return nil
	case <-s.quit:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await runs fn in the loop, then waits until cond says so.
func (s *Set) await(ctx context.Context, fn func() error, cond func() (bool, error)) error {
	w := &waiter{cond: cond, done: make(chan error, 1)}
	var ferr error
	err := s.do(ctx, func() {
		if ferr = fn(); ferr == nil {
			s.waiters = append(s.waiters, w)
		}
	})
	if err != nil {
		return err
	}
	if ferr != nil {
		return ferr
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		_ = s.do(context.Background(), func() {
			for i := range s.waiters {
				if s.waiters[i] == w {
					s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
					return
				}
			}
		})
		return ctx.Err()
	}
}

// Ready waits until every group has a worker that could serve: one in a trial,
// all of them after the commit. It fails with the reason when a worker of a trial
// comes to nothing, and with ErrRollStopped when a roll has stopped.
func (s *Set) Ready(ctx context.Context) error {
	return s.await(ctx, func() error { return nil }, func() (bool, error) {
		// All of these first: what goes after them waits.
		for _, g := range s.groups {
			if err := s.nothingCameOf(g); err != nil {
				return false, err
			}
		}
		for _, g := range s.groups {
			if s.committed {
				// A group whose roll has stopped is settled, too, as soon as the
				// worker that came to nothing is gone.
				if g.halted != nil || !g.settled(s) {
					return false, g.halted
				}
				continue
			}
			if !slices.ContainsFunc(g.members, func(in *incarnation) bool { return in.state == lifecycle.Standby }) {
				return false, nil
			}
		}
		return true, nil
	})
}

// Serves waits until every group has a worker that serves, or until nothing comes of those
// that it starts.
func (s *Set) Serves(ctx context.Context) error {
	return s.await(ctx, func() error { return nil }, func() (bool, error) {
		for _, g := range s.groups {
			if g.dropped || slices.ContainsFunc(g.members, func(in *incarnation) bool { return in.state.Serves() }) {
				continue
			}
			return false, s.nothingCameOf(g)
		}
		return true, nil
	})
}

// stuckAfter is how many workers in a row of a slot have to come to nothing before
// Ready does not wait for it any more.
const stuckAfter = 3

// nothingCameOf is why a group's workers are not waited for, or nil.
func (s *Set) nothingCameOf(g *group) error {
	if s.committed {
		return g.stuck()
	}
	if sl := g.slot(1); sl.failures > 0 {
		return fmt.Errorf("the new generation's %w", sl.last)
	}
	return nil
}

// stuck is why a slot stays empty, or nil.
func (g *group) stuck() error {
	for n := 1; n <= g.Count; n++ {
		if err := g.stuckAt(n); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) stuckAt(n int) error {
	sl := g.slots[n]
	served := func(in *incarnation) bool { return in.slot == n && !in.stale && in.state.Serves() }
	if sl != nil && sl.failures >= stuckAfter && !slices.ContainsFunc(g.members, served) {
		return fmt.Errorf("%w: slot %s/%d is empty after %d tries: %w", ErrRollStopped, g.Name, n, sl.failures, sl.last)
	}
	return nil
}

// Restart replaces all workers by new ones, Surge at a time, and returns when
// the new ones serve and the old ones accept no more: they may still drain. If a replacement can't start, it
// returns ErrRollStopped with the reason, and the workers that were to be replaced
// go on; the next Restart tries again at once. A Restart during another one
// replaces also what that one has started, and both return at the end. The end of
// ctx ends the wait, not the roll.
func (s *Set) Restart(ctx context.Context) error {
	return s.await(ctx, func() error {
		if s.stopping {
			return ErrEnded
		}
		for _, g := range s.groups {
			g.halted = nil
			clear(g.slots) // whoever asks anew does not wait for the old backoff
			for _, in := range g.members {
				in.stale, in.worn = true, ""
			}
		}
		return nil
	}, func() (bool, error) {
		for _, g := range s.groups {
			if g.halted != nil {
				return true, g.halted
			}
			if !g.settled(s) {
				return false, nil
			}
		}
		return true, nil
	})
}

// Scale sets the number of a group's workers, at least 1, and returns when that
// many serve and the rest accept no more. A slot whose workers can't start, three in a
// row, ends the wait with ErrRollStopped, as the end of ctx does; they are tried again all
// the same. While the set is given away it
// is ErrGivenAway.
func (s *Set) Scale(ctx context.Context, groupName string, count int) error {
	if count < 1 {
		return fmt.Errorf("workerset: scale %s to %d: at least 1 worker is needed", groupName, count)
	}
	var g *group
	return s.await(ctx, func() error {
		switch g = s.groupOf(groupName); {
		case s.stopping:
			return ErrEnded
		case s.yielded:
			return ErrGivenAway
		case g == nil:
			return s.noGroup(groupName)
		}
		return s.scale(g, count)
	}, func() (bool, error) {
		if err := g.stuck(); err != nil {
			return false, err
		}
		return g.settled(s), nil
	})
}

// ScaleBy changes the number of a group's workers by n, to at least 1, and returns
// the new number without waiting for it to come true.
func (s *Set) ScaleBy(ctx context.Context, groupName string, n int) (count int, err error) {
	derr := s.do(ctx, func() {
		switch g := s.groupOf(groupName); {
		case s.stopping || s.yielded:
			err = ErrEnded
		case g == nil:
			err = s.noGroup(groupName)
		default:
			count = max(1, g.Count+n)
			err = s.scale(g, count)
		}
	})
	return count, errors.Join(derr, err)
}

// Reopen asks all workers to open their log files anew: those that have greeted by
// SIGUSR1, foreign ones by their group's ReopenSignal, if it has one.
func (s *Set) Reopen(ctx context.Context) error {
	return s.do(ctx, func() {
		for _, g := range s.groups {
			for _, in := range g.members {
				switch {
				case in.greeted:
					s.signal(in, syscall.SIGUSR1)
				case in.program && in.as.ReopenSignal != 0 && in.state.Accepts():
					s.signal(in, in.as.ReopenSignal)
				}
			}
		}
	})
}

// settled: the group is what is wanted, as far as a roll that has stopped allows.
func (g *group) settled(s *Set) bool { return lifecycle.Settled(g.view(), s.want(g)) }

// Stop drains all workers and ends Run when they are gone. It does not wait.
func (s *Set) Stop() { poke(s.stop) }

// Kill ends all workers at once, also those that a Stop drains, and Run when they
// are gone. It does not wait.
func (s *Set) Kill() { poke(s.kill) }

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Actor returns Run, and Stop, for run.Group.Add. The interrupt function does not
// wait and cuts nothing.
func (s *Set) Actor() (execute func() error, interrupt func(error)) {
	return s.Run, func(error) { s.Stop() }
}

// Worker is what there is to say of one worker.
type Worker struct {
	Group      string    `json:"group"`
	Slot       int       `json:"slot"`
	ID         int       `json:"id"`
	Generation int       `json:"generation"`
	Pid        int       `json:"pid"`
	State      string    `json:"state"`
	Since      time.Time `json:"since"`   // in this state
	Started    time.Time `json:"started"` // its process
	Stale      bool      `json:"stale,omitempty"`
	Cause      string    `json:"cause,omitempty"` // why it ends, if the set did not want it to; "recycle": it has reached a limit
	Reason     string    `json:"reason,omitempty"`
	Exit       string    `json:"exit,omitempty"` // how its process ended, in state exited
	// Connections, as it last said: Active are open, of which Idle wait for a request
	// and Hijacked belong to a handler; Served were accepted, MovedIn came from other
	// workers, MovedOut went to them, and Cut were closed in the end.
	Active   int `json:"active"`
	Idle     int `json:"idle"`
	Hijacked int `json:"hijacked"`
	Served   int `json:"served"`
	Requests int `json:"requests,omitempty"` // as Recycle.MaxRequests counts them
	MovedIn  int `json:"movedIn"`
	MovedOut int `json:"movedOut"`
	Cut      int `json:"cut"`
	// Let is why the set let it go, if it did: "upgrade", "restart", "scale", "dropped" (its
	// group is not in the configuration any more) or "stop".
	Let string `json:"let,omitempty"`
	// Drain is when it stopped to accept, and Deadline when what it still has is cut.
	Drain    time.Time `json:"drain,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Conns are some of the connections that keep it, while it drains, as it last said: up to
	// 16. Of a program that can't say it there are none.
	Conns []Conn `json:"conns,omitempty"`
	// Usage is what Meter.Measure has found out.
	Usage *Usage `json:"usage,omitempty"`
	// Terminated and Killed: it was sent SIGTERM, SIGKILL.
	Terminated bool `json:"terminated,omitempty"`
	Killed     bool `json:"killed,omitempty"`
	// Kept: this process sees what it prints, see Config.Printed.
	Kept bool `json:"kept,omitempty"`
	// Restarts is how often one in its slot had to be replaced.
	Restarts int    `json:"restarts"`
	Status   string `json:"status,omitempty"` // what a program says of itself (sd_notify(3))
	Dump     string `json:"dump,omitempty"`   // in state exited: the Go runtime's report of a crash
	// Heard is when it has last said something on its channel, and zero for a program that
	// can't be asked. Refresh asks.
	Heard time.Time `json:"heard,omitzero"`
}

// Accepts reports whether the worker accepts connections, or whatever else is its work.
func (w Worker) Accepts() bool {
	return w.State == "serving" || w.State == "degraded" || w.State == "condemned"
}

// Change is one step in a worker's life.
type Change struct {
	Worker Worker
	From   string // the state before
	// Restart: it has exited although the set did not want it to, as GroupStatus.Restarts
	// counts it.
	Restart bool
}

// GroupStatus is what there is to say of a group.
type GroupStatus struct {
	Name     string   `json:"name"`
	Count    int      `json:"count"`
	Restarts int      `json:"restarts"`         // workers that ended, or asked to, unlike in a roll
	Failures int      `json:"failures"`         // of all workers; TERM and an app that returns are none
	Halted   string   `json:"halted,omitempty"` // why a roll stopped
	Workers  []Worker `json:"workers"`
	// Waiting are the slots whose next worker has to wait.
	Waiting []Waiting `json:"waiting,omitempty"`
	// WaitsFor are the groups that have to serve before this one starts.
	WaitsFor []string `json:"waitsFor,omitempty"`
	// Sockets are the names of those that its workers have, Slot standing for the slot.
	Sockets []string `json:"sockets,omitempty"`
	// Deaths are the last workers that failed, or had reached a limit, and have ended, the
	// latest last.
	Deaths []Death `json:"deaths,omitempty"`
}

// Waiting is a slot that gets no worker yet.
type Waiting struct {
	Slot     int       `json:"slot"`
	Failures int       `json:"failures"`         // workers in a row that came to nothing
	Reason   string    `json:"reason,omitempty"` // why the last of them did
	Until    time.Time `json:"until,omitzero"`   // zero: until the group fails less often
}

// waiting lists the slots that wait.
func (g *group) waiting() (list []Waiting) {
	now := time.Now()
	for n := 1; n <= g.Count; n++ {
		sl := g.slots[n]
		if sl == nil || !now.Before(sl.notBefore) && sl.owes.IsZero() && (sl.failures == 0 || g.has(n)) {
			continue // else the next is due this very moment: what was the matter is true until then
		}
		w := Waiting{Slot: n, Failures: sl.failures}
		if sl.last != nil {
			w.Reason = sl.last.Error()
		}
		if sl.owes.IsZero() {
			w.Until = sl.notBefore
		}
		list = append(list, w)
	}
	return list
}

// has reports whether a slot has a worker, whatever it does.
func (g *group) has(slot int) bool {
	return slices.ContainsFunc(g.members, func(in *incarnation) bool { return in.slot == slot })
}

// Status is what there is to say of a set.
type Status struct {
	Generation int           `json:"generation"`
	Groups     []GroupStatus `json:"groups"`
	// Stopping: the set stops, or is about to.
	Stopping bool `json:"stopping,omitempty"`
}

// Ready reports whether clients should come: every group that has sockets has a worker
// that accepts, and the set is not about to stop. Why they should not is for a person.
func (s Status) Ready() (ready bool, why string) {
	if s.Stopping {
		return false, "the service stops"
	}
	// Nobody comes to a group without sockets, unless there are no others.
	someHave := slices.ContainsFunc(s.Groups, func(g GroupStatus) bool { return len(g.Sockets) > 0 })
	for _, g := range s.Groups {
		if someHave && len(g.Sockets) == 0 {
			continue
		}
		if !slices.ContainsFunc(g.Workers, Worker.Accepts) {
			return false, fmt.Sprintf("no worker of group %s serves", g.Name)
		}
	}
	return true, ""
}

func (in *incarnation) status() Worker {
	w := Worker{
		Group: in.group.Name, Slot: in.slot, ID: in.id, Generation: in.generation, Pid: in.pid(),
		State: in.state.String(), Since: in.since, Started: in.began, Stale: in.stale,
		Cause: string(in.cause), Reason: in.reason, Exit: in.exit,
		Active: in.report.Active, Idle: in.report.Idle, Hijacked: in.report.Hijacked, Served: in.report.Served, Requests: in.report.Requests,
		MovedIn: in.report.MovedIn, MovedOut: in.report.MovedOut, Cut: in.report.Cut,
		Let: in.let, Drain: in.drainAt, Terminated: in.terminated, Killed: in.killed,
		Kept: len(in.streams) > 0, Restarts: in.group.slotRestarts[in.slot], Status: in.text, Dump: in.dump,
	}
	if in.state == lifecycle.Draining && !in.drainAt.IsZero() {
		w.Deadline = in.drainAt.Add(in.as.DrainTimeout)
	}
	if in.state == lifecycle.Draining {
		for _, c := range in.report.Open {
			w.Conns = append(w.Conns, Conn(c))
		}
	}
	if in.beats && in.conn != nil && !in.foreign() {
		w.Heard = in.beat
	}
	return w
}

// Status says how the set is now.
func (s *Set) Status(ctx context.Context) (Status, error) {
	st := Status{Generation: s.cfg.Generation}
	err := s.do(ctx, func() {
		st.Stopping = s.stopping || !s.stopAt.IsZero()
		for _, g := range s.groups {
			gs := GroupStatus{Name: g.Name, Count: g.Count, Restarts: g.restarts, Failures: g.failures, Waiting: g.waiting(), WaitsFor: s.waitsFor(g), Sockets: g.Sockets, Deaths: g.deaths}
			if g.halted != nil {
				gs.Halted = g.halted.Error()
			}
			for _, in := range g.members {
				gs.Workers = append(gs.Workers, in.status())
			}
			st.Groups = append(st.Groups, gs)
		}
	})
	return st, err
}

// refreshTime bounds Refresh.
const refreshTime = 200 * time.Millisecond

// Refresh asks the workers that speak on their channel for what they say in Status,
// and waits for their answers, but not long.
func (s *Set) Refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	asked := map[*incarnation]int{}
	_ = s.await(ctx, func() error {
		if s.yielded || s.stopping {
			return ErrEnded
		}
		for _, g := range s.groups {
			for _, in := range g.members {
				if in.conn != nil && !in.deaf && !in.foreign() && in.out.Urge(wire.Who{Cmd: wire.CmdWho}) == nil {
					asked[in] = in.words
				}
			}
		}
		return nil
	}, func() (bool, error) {
		for in, words := range asked {
			if in.words == words && !in.deaf && in.state != lifecycle.Exited {
				return false, nil
			}
		}
		return true, nil
	})
}

// StopReport says how the set stopped. Call it after Run has returned.
func (s *Set) StopReport() Report { return s.report }

// Drained waits until no worker of an older generation, or from before a rolling
// restart, is left.
func (s *Set) Drained(ctx context.Context) error {
	return s.await(ctx, func() error { return nil }, func() (bool, error) {
		for _, g := range s.groups {
			for _, in := range g.members {
				if in.stale {
					return false, nil
				}
			}
		}
		return true, nil
	})
}
