//go:build linux

package workerset

import (
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// ago is a time that is still measured from, as in the process that has seen it.
func ago(d time.Duration) time.Time { return time.Now().Add(-d) }

// handed is st as it comes from a process whose time of day is ahead of this one's by d.
func handed(t *testing.T, st estateState, d time.Duration) []byte {
	t.Helper()
	text, err := st.encode()
	if err != nil {
		t.Fatal(err)
	}
	return golden.Ahead(text, d)
}

// TestEstateKeepsTime: what is measured goes on in the next process, whatever is done to the
// clock between them. What people are shown is the time that the clock showed.
func TestEstateKeepsTime(t *testing.T) {
	t.Parallel()
	for _, d := range golden.Jumps {
		in := &incarnation{began: ago(3 * time.Hour), readyAt: ago(2 * time.Hour), blamedAt: ago(time.Hour), drainAt: ago(time.Minute)}
		g := newGroup(Group{Name: "web"})
		g.budget.Full, g.deaths = ago(-20*time.Second), deaths()
		st := estateState{Groups: map[string]groupState{"web": g.handedOn()}, Workers: map[string]workerState{ofWeb1: in.handedOn(), ofWeb2: {}}}
		got, err := decode(handed(t, st, d))
		if err != nil {
			t.Fatal(err)
		}
		ws := got.Workers[ofWeb1]
		for what, times := range map[string][2]time.Time{
			"began": {in.began, ws.Began}, "ready": {in.readyAt, ws.Ready}, "blamed": {in.blamedAt, ws.Blamed},
			"drain": {in.drainAt, ws.Drain}, "budget": {g.budget.Full, got.Groups["web"].BudgetFull},
		} {
			if off := times[1].Sub(times[0]); off != 0 {
				t.Errorf("the clock is %v ahead: %s is off by %v", d, what, off)
			}
		}
		if ws := got.Workers[ofWeb2]; !ws.Began.IsZero() || !ws.Ready.IsZero() || !ws.Blamed.IsZero() || !ws.Drain.IsZero() {
			t.Errorf("nothing has become %+v", ws)
		}
		if died := got.Groups["web"].Deaths[0].Time; !died.Equal(deaths()[0].Time.Add(d)) {
			t.Errorf("a death is shown at %v", died)
		}
	}
}

// bare is a set that does not run.
func bare(t *testing.T) (*Set, *group) {
	t.Helper()
	g := newGroup(Group{Name: "web", Count: 1, DrainTimeout: time.Hour, Recycle: Recycle{MaxAge: 24 * time.Hour, Jitter: 0.5}})
	s := &Set{
		cfg: Config{Generation: 4, Recipe: "same"}, groups: []*group{g}, byKey: map[int]*incarnation{}, committed: true, post: newPost(),
		log: slog.New(slog.DiscardHandler), events: make(chan event), quit: make(chan struct{}),
	}
	return s, g
}

// taken is a worker that was ready two hours after it began, and a set that has taken it over
// from a parent whose time of day is ahead by d, and which may be dead.
func taken(t *testing.T, dead bool, ready, d time.Duration) (was, in *incarnation, s *Set) {
	t.Helper()
	e, _ := given(t)
	var identity string
	for name := range e.Files {
		if of, ok := strings.CutPrefix(name, kindPidfd); ok {
			identity = of
		}
	}
	was = &incarnation{began: ago(ready + 2*time.Hour), readyAt: ago(ready), drainAt: ago(time.Minute)}
	s, g := bare(t)
	e.State = handed(t, estateState{
		Groups: map[string]groupState{"web": {BudgetFull: ago(-20 * time.Second)}}, Workers: map[string]workerState{identity: was.handedOn()},
	}, d)
	if !dead {
		s.adopt(e)
	} else {
		var err error
		if s.past, err = decode(e.State); err != nil {
			t.Fatal(err)
		}
		if in, err = s.adoptOne(identity, e, s.past, postState{}); err != nil {
			t.Fatal(err)
		}
		s.takeLeft(in, "same", s.past.Workers[identity])
	}
	if len(g.members) != 1 {
		t.Fatal("it is not taken over")
	}
	in = g.members[0]
	was.group, was.proc = in.group, in.proc
	t.Cleanup(func() {
		close(s.quit)
		_ = in.proc.Signal(syscall.SIGKILL)
		in.conn.Close()
		in.inbox.Close()
		for _, st := range in.streams {
			st.close()
		}
		s.wg.Wait()
		in.proc.Close()
	})
	return was, in, s
}

// TestAdoptedKeepTime: no worker is older or younger, and none has come to nothing or has been up
// for long, because the clock was set when it changed hands.
func TestAdoptedKeepTime(t *testing.T) {
	for _, d := range golden.Jumps {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			was, in, s := taken(t, false, time.Hour, d)
			now := time.Now()
			if off := in.use(now).Age - was.use(now).Age; off != 0 {
				t.Errorf("it has aged by %v", off)
			}
			if off := in.status().Drain.Sub(was.drainAt); off != 0 {
				t.Errorf("it drains since another %v", off)
			}
			if !s.surelyServed(in) {
				t.Error("it is not known to have served")
			}
			sl := in.group.slot(1)
			sl.failures = 3
			in.cause, in.blamedAt = wire.CauseRetire, now
			s.settleSlot(in, launch.Status{Known: true})
			if sl.failures != 0 || !sl.notBefore.IsZero() {
				t.Errorf("an hour was not long enough for its slot to be forgiven: %+v", *sl)
			}
			if next := in.group.budget.Next(now); next.After(now) {
				t.Errorf("the budget is used up until %v", next.Sub(now))
			}

			_, in, s = taken(t, false, 0, d)
			if s.surelyServed(in) {
				t.Error("it has just become ready, and is taken for one that has served")
			}
			sl = in.group.slot(1)
			in.cause, in.blamedAt = wire.CauseError, time.Now()
			s.settleSlot(in, launch.Status{Known: true})
			if sl.failures != 1 {
				t.Errorf("it has come to nothing, and its slot does not wait: %+v", *sl)
			}
		})
	}
}

// TestLeftKeepTime: so it is when the parent has died. The worker goes on with the limits that it
// had, and has its turn when its time has come.
func TestLeftKeepTime(t *testing.T) {
	for _, d := range golden.Jumps {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			was, in, s := taken(t, true, time.Hour, d)
			limits := in.as.Recycle.draw(was)
			if in.limits != limits {
				t.Errorf("its limits are %+v, and were %+v", in.limits, limits)
			}
			in.state = lifecycle.Serving
			if off := s.nextWear(in.group, time.Now()).Sub(was.began.Add(limits.Age)); off != 0 {
				t.Errorf("its turn comes %v later", off)
			}

			// And of one that has ended meanwhile is told what was.
			gone := &incarnation{began: ago(3 * time.Hour), drainAt: ago(time.Minute), dismissed: true}
			var told Worker
			s, g := bare(t)
			s.cfg.Observe = func(c Change) { told = c.Worker }
			full := ago(-20 * time.Second)
			s.cfg.Left.Remember(handed(t, estateState{
				Groups:  map[string]groupState{"web": {BudgetFull: full}},
				Workers: map[string]workerState{fmt.Sprintf("web/1/2/4/%d", 1<<22+1): gone.handedOn()}, // no process has this pid
			}, d))
			s.openHalls()
			if told.Started.Sub(gone.began) != 0 || told.Drain.Sub(gone.drainAt) != 0 || g.budget.Full.Sub(full) != 0 {
				t.Errorf("it began %v and drained %v later, the budget is full %v later",
					told.Started.Sub(gone.began), told.Drain.Sub(gone.drainAt), g.budget.Full.Sub(full))
			}
		})
	}
}
