//go:build linux

package workerset

import (
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// aging is a set of one group of workers that serve, in slots from 1, and began that long
// ago.
func aging(limits lifecycle.Limits, ago ...time.Duration) (*Set, *group) {
	g := newGroup(Group{Name: "web", Count: len(ago), Surge: 1})
	s := &Set{committed: true, groups: []*group{g}, log: slog.New(slog.DiscardHandler)}
	for i, d := range ago {
		g.members = append(g.members, &incarnation{
			group: g, key: s.nextKey(), slot: i + 1, state: lifecycle.Serving, began: time.Now().Add(-d), limits: limits,
		})
	}
	return s, g
}

// TestNextWear: the loop looks again exactly when a worker's time has come, and not before
// something else happens when it can't be replaced then.
func TestNextWear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g := aging(lifecycle.Limits{Age: 24 * time.Hour}, 3*time.Hour, time.Hour, 2*time.Hour)
		start := time.Now()
		for _, c := range []struct {
			after time.Duration
			slot  int
		}{{21 * time.Hour, 1}, {22 * time.Hour, 3}, {23 * time.Hour, 2}} {
			if next := s.nextWear(g, time.Now()); next.Sub(start) != c.after {
				t.Fatalf("it looks again after %v, not %v", next.Sub(start), c.after)
			}
			time.Sleep(time.Until(start.Add(c.after)) - time.Nanosecond)
			if s.recycle(g) {
				t.Fatal("too early")
			}
			time.Sleep(time.Nanosecond)
			if next := s.nextWear(g, time.Now()); !next.Equal(time.Now()) {
				t.Fatalf("it looks again at %v, now is %v", next, time.Now())
			}
			if !s.recycle(g) || s.recycle(g) {
				t.Fatal("not one, and then none")
			}
			in := g.members[c.slot-1]
			if in.worn != "age 24h0m" {
				t.Fatalf("slot %d: %q", c.slot, in.worn)
			}
			// Its replacement serves.
			in.state, in.began, in.worn = lifecycle.Serving, time.Now(), ""
		}

		// Who can't be replaced is not looked at again and again.
		time.Sleep(48 * time.Hour)
		g.slot(2).notBefore = time.Now().Add(time.Minute)
		if next := s.nextWear(g, time.Now()); !next.IsZero() || s.recycle(g) {
			t.Errorf("while a slot waits it looks at %v", next)
		}
		time.Sleep(time.Minute)
		for name, not := range map[string]func() func(){
			"in a trial":         func() func() { s.committed = false; return func() { s.committed = true } },
			"stopping":           func() func() { s.stopping = true; return func() { s.stopping = false } },
			"about to stop":      func() func() { s.stopAt = time.Now(); return func() { s.stopAt = time.Time{} } },
			"halted":             func() func() { g.halted = ErrRollStopped; return func() { g.halted = nil } },
			"one is stale":       func() func() { g.members[0].stale = true; return func() { g.members[0].stale = false } },
			"one is worn":        func() func() { g.members[0].worn = "age"; return func() { g.members[0].worn = "" } },
			"nobody has a limit": func() func() { return unlimited(g) },
		} {
			undo := not()
			if s.recycle(g) {
				t.Errorf("%s: somebody is recycled", name)
			}
			if next := s.nextWear(g, time.Now()); !next.IsZero() {
				t.Errorf("%s: it looks again at %v", name, next)
			}
			undo()
		}
		if !s.recycle(g) || g.members[0].worn != "age 50h1m" {
			t.Errorf("%q", g.members[0].worn)
		}
	})
}

// unlimited takes the limits of a group's workers, and gives them back.
func unlimited(g *group) (undo func()) {
	limits := g.members[0].limits
	set := func(l lifecycle.Limits) {
		for _, in := range g.members {
			in.limits = l
		}
	}
	set(lifecycle.Limits{})
	return func() { set(limits) }
}

// TestDegradedWear: who is degraded has its turn for that, unless its group keeps those.
func TestDegradedWear(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		s, g := aging(lifecycle.Limits{Age: time.Hour}, 2*time.Hour, 2*time.Hour)
		g.members[0].state, g.KeepFailed = lifecycle.Degraded, keep
		if s.recycle(g) != keep || (g.members[0].worn != "") != keep {
			t.Errorf("kept: %v, worn: %q", keep, g.members[0].worn)
		}
	}
}

// TestDismiss: only who was replaced for it is recycled.
func TestDismiss(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		change    func(in *incarnation)
		cause     wire.Cause
		dismissed bool
	}{
		{"worn", func(in *incarnation) { in.worn = "age 1h0m" }, wire.CauseRecycle, true},
		{"in a roll", func(in *incarnation) { in.stale = true }, "", true},
		{"not wanted any more", func(in *incarnation) { in.worn, in.slot = "age 1h0m", 3 }, "", true},
		{"failing", func(in *incarnation) { in.worn, in.cause = "age 1h0m", wire.CauseError }, wire.CauseError, false},
	} {
		s, g := aging(lifecycle.Limits{}, 0)
		in := g.members[0]
		g.slot(in.slot).failures = 2
		c.change(in)
		s.dismiss(in)
		if in.cause != c.cause || in.dismissed != c.dismissed || (in.reason == "age 1h0m") != (c.cause == wire.CauseRecycle) {
			t.Errorf("%s: %q, %q, %v", c.name, in.cause, in.reason, in.dismissed)
		}
		if failures := g.slots[1].failures; (failures == 0) != (c.cause == wire.CauseRecycle) {
			t.Errorf("%s: %d failures", c.name, failures)
		}
	}
}

// TestStuck: a slot that is served is not empty, however often its replacement has failed.
func TestStuck(t *testing.T) {
	t.Parallel()
	_, g := aging(lifecycle.Limits{}, 0)
	g.slot(1).failures = stuckAfter
	if err := g.stuck(); err != nil {
		t.Error(err)
	}
	g.members[0].state = lifecycle.Draining
	if err := g.stuck(); err == nil {
		t.Error("nobody serves it")
	}
}

// TestLots: workers' own limits are spread over the jitter, and each keeps its own.
func TestLots(t *testing.T) {
	t.Parallel()
	r := Recycle{MaxAge: 1000 * time.Hour, MaxRequests: 1000, MaxMemory: 1 << 30, Jitter: 0.2}
	began := time.Unix(1_700_000_000, 123)
	lots := map[int]int{}
	for i := range 1000 { // of a fleet that was started at the same time, in containers
		in := &incarnation{began: began.Add(time.Duration(i) * 1001)}
		l := r.draw(in)
		if again := r.draw(&incarnation{began: in.began.UTC()}); again != l {
			t.Fatalf("%+v, then %+v", l, again)
		}
		if l.Requests < 800 || l.Requests > 1000 || l.Age < 800*time.Hour || l.Age > r.MaxAge || l.Memory != r.MaxMemory {
			t.Fatalf("%+v", l)
		}
		lots[(l.Requests-800)/20]++
	}
	for part := range 10 {
		if n := lots[part]; n < 50 || n > 200 {
			t.Errorf("%d of 1000 in part %d", n, part)
		}
	}
}

func TestWhyWorn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	limits := lifecycle.Limits{Age: 24 * time.Hour, Requests: 10_000, Memory: 512 << 20}
	for _, c := range []struct {
		change func(in *incarnation)
		why    string
	}{
		{func(in *incarnation) { in.began = now.Add(-24*time.Hour - 3*time.Millisecond) }, "age 24h0m"},
		{func(in *incarnation) { in.began = now.Add(-25*time.Hour - 61*time.Second) }, "age 25h1m1s"},
		{func(in *incarnation) { in.limits.Age, in.began = time.Second, now.Add(-10*time.Second) }, "age 10s"},
		{func(in *incarnation) { in.report.Requests = 10_000 }, "10,000 requests"},
		{func(in *incarnation) { in.report.Requests = 1_234_567 }, "1,234,567 requests"},
		{func(in *incarnation) { in.limits.Requests, in.report.Requests = 7, 100 }, "100 requests"},
		{func(in *incarnation) { in.memory = 600 << 20 }, "RSS 600 MiB over 512 MiB"},
		{func(in *incarnation) { in.memory, in.as.Recycle.PSS = 3<<29, true }, "PSS 1.5 GiB over 512 MiB"},
	} {
		in := &incarnation{began: now, limits: limits}
		c.change(in)
		if why := in.whyWorn(now); why != c.why || in.wear(now) < 1 {
			t.Errorf("%q, not %q, at %v", why, c.why, in.wear(now))
		}
	}
}

// TestRecycledDeaths: no number of recycled workers hides a failure, nor the other way.
func TestRecycledDeaths(t *testing.T) {
	t.Parallel()
	g := newGroup(Group{Name: "web"})
	g.record(Death{ID: 1, Cause: "crash"}, Death{ID: 2, Cause: "recycle"})
	for id := 3; id <= 30; id++ {
		g.record(Death{ID: id, Cause: "recycle"})
	}
	var ids []int
	for _, d := range g.deaths {
		ids = append(ids, d.ID)
	}
	if !slices.Equal(ids, []int{1, 23, 24, 25, 26, 27, 28, 29, 30}) {
		t.Errorf("%v", ids)
	}
}

func TestRecycleValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r       Recycle
		program bool
		why     string
	}{
		{Recycle{}, false, ""},
		{Recycle{MaxAge: time.Second, MaxRequests: 1, MaxMemory: 1 << 20, PSS: true, Jitter: 0.99}, false, ""},
		{Recycle{MaxAge: time.Second, MaxMemory: 1 << 20, Jitter: -1}, true, ""},
		{Recycle{MaxAge: -1}, false, "max age -1ns: must not be negative"},
		{Recycle{MaxAge: 999 * time.Millisecond}, false, "max age 999ms: workers would do nothing but come and go"},
		{Recycle{MaxRequests: -1}, false, "max requests -1: must not be negative"},
		{Recycle{MaxRequests: 1}, true, "max requests 1: a program does not say how many it has served"},
		{Recycle{MaxMemory: -1}, false, "max memory -1: must not be negative"},
		{Recycle{MaxMemory: 512}, false, "max memory 512 bytes: no process has so little, at least 1 MiB is needed"},
		{Recycle{PSS: true}, false, "PSS is about a max memory"},
		{Recycle{Jitter: 1}, false, "jitter 1: a fraction below 1 is needed"},
		{Recycle{Jitter: math.NaN()}, false, "jitter NaN: a fraction below 1 is needed"},
	} {
		err := c.r.Validate(c.program)
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	g := Group{Name: "web", Count: 1, Recycle: Recycle{MaxAge: -1}}
	if err := (Config{Groups: []Group{g}}).Validate(); err == nil || !strings.Contains(err.Error(), `group "web": max age`) {
		t.Error(err)
	}
	g = Group{Name: "web", Count: 1, Program: &Program{Path: "/bin/true"}, Recycle: Recycle{MaxRequests: 1}}
	if err := (Config{Groups: []Group{g}}).Validate(); err == nil || !strings.Contains(err.Error(), `group "web": max requests 1`) {
		t.Error(err)
	}
	g.Recycle = Recycle{MaxAge: time.Hour}
	cfg, err := (Config{Groups: []Group{g}}).withDefaults()
	if err != nil || cfg.Groups[0].Recycle.Jitter != DefaultJitter {
		t.Errorf("%+v, %v", cfg.Groups, err)
	}
}
