package lifecycle

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// ws numbers the workers of a group from 1.
func ws(list ...Worker) []Worker {
	for i := range list {
		list[i].ID = i + 1
	}
	return list
}

func TestPlanExamples(t *testing.T) {
	t.Parallel()
	at := func(slot int, s State) Worker { return Worker{Slot: slot, State: s} }
	old := func(slot int, s State) Worker { return Worker{Slot: slot, State: s, Stale: true} }
	done := func(w Worker) Worker { w.Released = true; return w }
	for _, c := range []struct {
		name    string
		workers []Worker
		want    Want
		steps   Steps
	}{
		{"nothing yet", nil, Want{Count: 2}, Steps{Spawn: []int{1, 2}}},
		{"all there", ws(at(1, Serving), at(2, Degraded)), Want{Count: 2}, Steps{}},
		{"the gone do not count", ws(done(at(1, Draining)), at(2, Killing), at(3, Exited)), Want{Count: 3}, Steps{Spawn: []int{1, 2, 3}}},
		{"first failure drains at once", ws(at(1, Condemned), at(2, Serving)), Want{Count: 2},
			Steps{Spawn: []int{1}, Retire: []int{1}}},
		{"second failure goes on accepting", ws(at(1, Draining), at(2, Condemned), at(1, Starting)), Want{Count: 2},
			Steps{Spawn: []int{2}}},
		{"replacement serves", ws(at(1, Condemned), at(2, Draining), at(1, Serving), at(2, Serving)), Want{Count: 2},
			Steps{Replaced: []int{1, 2}}},
		{"a slot waits", ws(at(1, Condemned), at(2, Serving), at(3, Exited)), Want{Count: 3, Waits: []int{1, 3}}, Steps{}},
		{"where all fail, who need not wait drains", ws(at(1, Condemned), at(2, Condemned), at(3, Condemned)),
			Want{Count: 3, Waits: []int{1, 3}}, Steps{Spawn: []int{2}, Retire: []int{2}}},
		{"a replacement that came before the wait", ws(at(1, Condemned), at(1, Serving)), Want{Count: 1, Waits: []int{1}},
			Steps{Replaced: []int{1}}},
		{"a surplus slot does not wait", ws(at(1, Serving), at(2, Condemned)), Want{Count: 1, Waits: []int{2}},
			Steps{Replaced: []int{2}}},
		{"a roll goes on beside a slot that waits", ws(old(1, Serving), old(2, Serving)), Want{Count: 2, Waits: []int{1}},
			Steps{Spawn: []int{2}}},
		{"a roll begins", ws(old(1, Serving), old(2, Serving), old(3, Serving)), Want{Count: 3}, Steps{Spawn: []int{1}}},
		{"surge", ws(old(1, Serving), old(2, Serving), old(3, Serving)), Want{Count: 3, Surge: 2}, Steps{Spawn: []int{1, 2}}},
		{"a roll goes on", ws(old(1, Serving), old(2, Serving), at(1, Serving)), Want{Count: 2},
			Steps{Spawn: []int{2}, Retire: []int{1}}},
		{"a roll is halted", ws(old(1, Serving), old(2, Condemned), old(3, Draining)), Want{Count: 3, Halted: true},
			Steps{Spawn: []int{2, 3}}},
		{"a newer restart", ws(old(1, Serving), old(1, Starting)), Want{Count: 1}, Steps{Spawn: []int{1}, Retire: []int{2}}},
		{"scale down", ws(at(1, Serving), at(2, Serving), at(3, Starting)), Want{Count: 1}, Steps{Retire: []int{3, 2}}},
		{"scale down waits", ws(at(1, Starting), at(2, Serving)), Want{Count: 1}, Steps{}},
		{"a surplus failure", ws(at(1, Serving), at(2, Condemned)), Want{Count: 1}, Steps{Replaced: []int{2}}},
		{"a group that is dropped", ws(old(1, Serving), old(2, Condemned), old(3, Draining), old(4, Starting)), Want{},
			Steps{Replaced: []int{3, 2}, Retire: []int{4, 1}}},
		{ // The stale one that goes in any case has to be counted first.
			"a failure during a roll", ws(old(1, Draining), old(2, Condemned), old(3, Serving), at(1, Starting), at(2, Starting), at(3, Serving)),
			Want{Count: 3}, Steps{Retire: []int{3}},
		},
		{ // Of a failure and a surplus, the failure goes.
			"a failure while scaling down", ws(at(3, Serving), at(1, Condemned), at(2, Serving)), Want{Count: 2},
			Steps{Spawn: []int{1}, Retire: []int{2}},
		},
	} {
		got := Plan(c.workers, c.want)
		if !reflect.DeepEqual(got, c.steps) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.steps)
		}
	}
}

// TestPlanOfAnyTwo looks at every two workers there can be, also at those that
// no history leads to.
func TestPlanOfAnyTwo(t *testing.T) {
	t.Parallel()
	var one []Worker
	for slot := 1; slot <= 2; slot++ {
		for s := range numStates {
			for k := range 8 {
				one = append(one, Worker{Slot: slot, State: s, Stale: k&1 != 0, Released: k&2 != 0, Worn: k&4 != 0})
			}
		}
	}
	for _, a := range one {
		for _, b := range one {
			for k := range 12 {
				a.ID, b.ID = 1, 2
				want := Want{Count: k / 2 % 3, Surge: 1, Halted: k%2 != 0}
				if k >= 6 {
					want.Waits = []int{2}
				}
				steps := Plan([]Worker{a, b}, want)
				if turned := Plan([]Worker{b, a}, want); !reflect.DeepEqual(steps, turned) {
					t.Fatalf("%+v, %+v: %+v or %+v", a, b, steps, turned)
				}
				if again := Plan(carryOut([]Worker{a, b}, steps), want); !reflect.DeepEqual(again, Steps{}) {
					t.Fatalf("%+v, %+v, %+v: after %+v it wants %+v", a, b, want, steps, again)
				}
			}
		}
	}
}

// carryOut does what a shell does with steps.
func carryOut(workers []Worker, steps Steps) []Worker {
	give := func(id int, e Event) {
		w := &workers[slices.IndexFunc(workers, func(w Worker) bool { return w.ID == id })]
		next, effect := Next(w.State, e)
		w.State, w.Released = next, w.Released || effect.Has(SendExit)
	}
	for _, id := range steps.Replaced {
		give(id, Replaced)
	}
	for _, id := range steps.Retire {
		give(id, Retire)
	}
	for _, slot := range steps.Spawn {
		workers = append(workers, Worker{ID: len(workers) + 1, Slot: slot})
	}
	return workers
}

// TestPlanOfAnyGroup does the same with larger groups, at random.
func TestPlanOfAnyGroup(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		group := make([]Worker, rnd.IntN(8))
		for i := range group {
			group[i] = Worker{
				ID: i + 1, Slot: 1 + rnd.IntN(4), State: State(rnd.IntN(int(numStates))),
				Stale: rnd.IntN(2) == 0, Released: rnd.IntN(2) == 0, Worn: rnd.IntN(4) == 0,
			}
		}
		want := Want{Count: 1 + rnd.IntN(4), Surge: rnd.IntN(3), Halted: rnd.IntN(4) == 0, Waits: rnd.Perm(5)[:rnd.IntN(3)]}
		steps := Plan(group, want)
		turned := slices.Clone(group)
		rnd.Shuffle(len(turned), func(i, j int) { turned[i], turned[j] = turned[j], turned[i] })
		if other := Plan(turned, want); !reflect.DeepEqual(steps, other) {
			t.Fatalf("%+v: %+v or %+v", group, steps, other)
		}
		if again := Plan(carryOut(slices.Clone(group), steps), want); !reflect.DeepEqual(again, Steps{}) {
			t.Fatalf("%+v, %+v: after %+v it wants %+v", group, want, steps, again)
		}
	}
}

// rest has everyone do what is next for him, until nothing is. It returns how many
// were spawned.
func (x *explorer) rest(g *group) (spawned int) {
	for i := 0; i < int(g.n); i++ {
		if _, change := ownMove(&g.procs[i]); change != nil {
			e := change(g, &g.procs[i])
			if e == Spawned {
				spawned++
			}
			if e == numEvents {
				x.settle(g)
			} else {
				x.react(g, i, e)
			}
			i = -1
		}
	}
	return spawned
}

// TestHundredFailures: after a hundred failures, one after the other, a hundred
// have been replaced and the count is what it was.
func TestHundredFailures(t *testing.T) {
	t.Parallel()
	x := newExplorer(bounds{Count: 3, Surge: 1})
	g := group{count: 3, committed: true}
	x.settle(&g)
	spawned := x.rest(&g)
	for k := range 100 {
		i := k % 3
		g.procs[i].has |= waits | cause
		g.hurt = true
		x.react(&g, i, Failed)
		spawned += x.rest(&g)
	}
	if x.broken != "" {
		t.Fatalf("%s: %s", x.broken, x.detail)
	}
	if !x.atRest(&g) || g.n != 3 || spawned != 103 {
		t.Errorf("%d workers, %d were started", g.n, spawned)
	}
}

// slowBackoff is Backoff said plainly.
func slowBackoff(n int) time.Duration {
	wait := time.Duration(0)
	for i := range n {
		if i == 0 {
			wait = 100 * time.Millisecond
		} else if wait *= 2; wait > 30*time.Second {
			return 30 * time.Second
		}
	}
	return wait
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for n := -3; n <= 200; n++ {
		if got, want := Backoff(n), slowBackoff(n); got != want {
			t.Errorf("after %d: %v, want %v", n, got, want)
		}
	}
	if got := Backoff(1 << 40); got != 30*time.Second {
		t.Errorf("after very many: %v", got)
	}
}
