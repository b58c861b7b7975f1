package lifecycle

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestRecycleExamples(t *testing.T) {
	t.Parallel()
	at := func(slot int, s State, wear float64) Worker { return Worker{Slot: slot, State: s, Wear: wear} }
	old := func(w Worker) Worker { w.Stale = true; return w }
	worn := func(w Worker) Worker { w.Worn = true; return w }
	three := ws(at(1, Serving, 1), at(2, Serving, 2), at(3, Serving, 1))
	for _, c := range []struct {
		name    string
		workers []Worker
		want    Want
		ids     []int
	}{
		{"nobody", nil, Want{Count: 1}, nil},
		{"nearly", ws(at(1, Serving, 0.999)), Want{Count: 1}, nil},
		{"at the limit", ws(at(1, Serving, 1)), Want{Count: 1}, []int{1}},
		{"the furthest first", three, Want{Count: 3, Surge: 1}, []int{2}},
		{"at least one at a time", three, Want{Count: 3}, []int{2}},
		{"of two alike the elder", three, Want{Count: 3, Surge: 2}, []int{2, 1}},
		{"all", three, Want{Count: 3, Surge: 9}, []int{2, 1, 3}},
		{"a surplus one goes anyway", three, Want{Count: 2, Surge: 9}, []int{2, 1}},
		{"one is under way", ws(worn(at(1, Serving, 2)), at(1, Starting, 0), at(2, Serving, 1)), Want{Count: 2, Surge: 1}, nil},
		{"one is under way, surge", ws(worn(at(1, Serving, 2)), at(1, Starting, 0), at(2, Serving, 1)), Want{Count: 2, Surge: 2}, []int{3}},
		{"one is about to be", ws(worn(at(1, Serving, 2)), at(2, Serving, 1)), Want{Count: 2, Surge: 1}, nil},
		{"one is done", ws(worn(at(1, Draining, 2)), at(1, Serving, 0), at(2, Serving, 1)), Want{Count: 2, Surge: 1}, []int{3}},
		{"a slot is empty", ws(at(2, Serving, 1)), Want{Count: 2, Surge: 1}, nil},
		{"a slot waits", three, Want{Count: 3, Surge: 9, Waits: []int{1}}, nil},
		{"a surplus slot waits", three, Want{Count: 3, Surge: 1, Waits: []int{4}}, []int{2}},
		{"a roll", ws(old(at(1, Serving, 1)), at(2, Serving, 1)), Want{Count: 2, Surge: 9}, nil},
		{"a roll that has stopped", ws(at(1, Serving, 1)), Want{Count: 1, Surge: 9, Halted: true}, nil},
		{"old ones that drain", ws(old(at(1, Draining, 9)), at(1, Serving, 1)), Want{Count: 1}, []int{2}},
		{"one fails", ws(at(1, Condemned, 0), at(2, Serving, 1)), Want{Count: 2, Surge: 9}, nil},
		{"one is degraded", ws(at(1, Degraded, 9), at(2, Serving, 1)), Want{Count: 2, Surge: 9}, nil},
		{"a group that is dropped", three, Want{Surge: 9}, nil},
	} {
		if got := Recycle(c.workers, c.want); !reflect.DeepEqual(got, c.ids) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.ids)
		}
	}
}

// TestRecycleOfAnyGroup: the order of the workers does not matter, neither does one more
// of Surge to those who went before, and once they are worn Plan replaces each of them
// and it is nobody's turn.
func TestRecycleOfAnyGroup(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(5, 6))
	named := 0
	for range 50_000 {
		group := make([]Worker, rnd.IntN(6))
		for i := range group {
			group[i] = Worker{ID: i + 1, Slot: 1 + i%4, State: Serving, Wear: float64(rnd.IntN(4)) / 2}
			if rnd.IntN(8) == 0 {
				group[i].State = State(rnd.IntN(int(numStates)))
			}
			group[i].Stale, group[i].Worn = rnd.IntN(16) == 0, rnd.IntN(8) == 0
		}
		want := Want{Count: rnd.IntN(5), Surge: 1 + rnd.IntN(3), Halted: rnd.IntN(8) == 0}
		group = carryOut(group, Plan(group, want))
		ids := Recycle(group, want)
		rnd.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		if other := Recycle(group, want); !reflect.DeepEqual(ids, other) {
			t.Fatalf("%+v: %v or %v", group, ids, other)
		}
		wider := want
		wider.Surge++
		if more := Recycle(group, wider); len(more) < len(ids) || len(more) > len(ids)+1 || !slices.Equal(more[:len(ids)], ids) {
			t.Fatalf("%+v, %+v: %v, before %v", group, wider, more, ids)
		}
		named += len(ids)
		for i, w := range group {
			group[i].Worn = w.Worn || slices.Contains(ids, w.ID)
		}
		if again := Recycle(group, want); len(again) > 0 {
			t.Fatalf("%+v, %+v: %v, after that %v", group, want, ids, again)
		}
		if spawn := Plan(group, want).Spawn; len(spawn) != len(ids) {
			t.Fatalf("%+v, %+v: %v are worn, %v spawned", group, want, ids, spawn)
		}
	}
	if named < 1000 {
		t.Errorf("only %d had a turn", named)
	}
}

// TestWornStays: nobody waits for a worn worker's replacement, and when it comes to
// nothing all is as before.
func TestWornStays(t *testing.T) {
	t.Parallel()
	want := Want{Count: 2, Surge: 1}
	group := ws(Worker{Slot: 1, State: Serving}, Worker{Slot: 2, State: Serving, Worn: true})
	settled := func(when string) {
		t.Helper()
		if !Settled(group, want) {
			t.Errorf("%s: not settled", when)
		}
	}
	settled("worn")
	if steps := Plan(group, want); !reflect.DeepEqual(steps, Steps{Spawn: []int{2}}) {
		t.Errorf("%+v", steps)
	}
	for _, s := range []State{Spawning, Starting, Standby} {
		group = append(group[:2], Worker{ID: 3, Slot: 2, State: s})
		settled(s.String())
		if steps := Plan(group, want); !reflect.DeepEqual(steps, Steps{}) {
			t.Errorf("%v: %+v", s, steps)
		}
	}
	group[2].State, group[1].Worn = Terminating, false
	settled("its replacement has come to nothing")
	if steps := Plan(group, want); !reflect.DeepEqual(steps, Steps{}) {
		t.Errorf("%+v", steps)
	}
	group[2].State, group[1].Worn = Serving, true
	if steps := Plan(group, want); !reflect.DeepEqual(steps, Steps{Retire: []int{2}}) {
		t.Errorf("%+v", steps)
	}
	group = append(group[:2], Worker{ID: 3, Slot: 1, State: Starting})
	if Settled(group, want) {
		t.Error("settled, although another slot's worker arrives")
	}
}

func TestWear(t *testing.T) {
	t.Parallel()
	all := Limits{Age: time.Hour, Requests: 100, Memory: 1 << 20}
	for _, c := range []struct {
		limits Limits
		use    Use
		wear   float64
		of     Limit
	}{
		{Limits{}, Use{Age: time.Hour, Requests: 7, Memory: 9}, 0, NoLimit},
		{all, Use{}, 0, NoLimit},
		{all, Use{Age: 30 * time.Minute}, 0.5, AgeLimit},
		{all, Use{Age: time.Hour}, 1, AgeLimit},
		{all, Use{Age: 30 * time.Minute, Requests: 51}, 0.51, RequestLimit},
		{all, Use{Age: 30 * time.Minute, Requests: 51, Memory: 2 << 20}, 2, MemoryLimit},
		{Limits{Requests: 3}, Use{Age: time.Hour, Requests: 3, Memory: 1 << 40}, 1, RequestLimit},
		{all, Use{Age: -time.Hour}, 0, NoLimit}, // a clock that was set back
	} {
		if wear, of := c.limits.Wear(c.use); wear != c.wear || of != c.of {
			t.Errorf("%+v of %+v: %v, %v", c.use, c.limits, wear, of)
		}
	}
}

func TestDraw(t *testing.T) {
	t.Parallel()
	all := Limits{Age: 10 * time.Hour, Requests: 1000, Memory: 1 << 20}
	for _, c := range []struct {
		limits    Limits
		jitter, u float64
		drawn     Limits
	}{
		{all, 0, 0.9, all},
		{all, -1, 0.9, all},
		{all, 0.5, 0, all},
		{all, 0.5, 0.5, Limits{Age: 7*time.Hour + 30*time.Minute, Requests: 750, Memory: 1 << 20}},
		{Limits{}, 0.5, 0.5, Limits{}},
		{Limits{Age: 1, Requests: 1}, 0.99, 0.99, Limits{Age: 1, Requests: 1}},
	} {
		if drawn := c.limits.Draw(c.jitter, c.u); drawn != c.drawn {
			t.Errorf("%+v, %v, %v: %+v", c.limits, c.jitter, c.u, drawn)
		}
	}
}
