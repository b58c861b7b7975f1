package lifecycle

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// What happens when a group fails more often than it may be replaced.

// turns are that a slot need not wait any longer, and that degraded workers have
// their turn. Both come sooner or later.
func (x *explorer) turns(g *group, yield func(string, uint8, bool, group)) {
	for slot := uint8(1); g.waits>>slot != 0; slot++ {
		if g.waits&(1<<slot) != 0 {
			to := *g
			to.waits &^= 1 << slot
			for i := range to.all() { // it may drain from now on
				p := &to.procs[i]
				to.hurt = to.hurt || p.state == Condemned && p.slot == slot
			}
			x.settle(&to)
			yield("its slot waits no longer", slot, true, to)
		}
	}
	if g.stopped {
		return
	}
	// Anyone may have been degraded longest, and the budget may end anywhere.
	workers := g.workers()
	for i := range workers {
		if workers[i].State != Degraded {
			continue
		}
		workers[i].Since = time.Time{}.Add(-1)
		ids := x.due(workers, x.want(g))
		workers[i].Since = time.Time{}
		x.checkDue(g, ids)
		if !slices.Contains(ids, i+1) {
			continue
		}
		to := *g
		to.hurt = true
		for _, id := range ids {
			x.happen(&to, id-1, Failed)
			after := to
			x.settle(&after)
			yield("its turn comes", to.procs[id-1].slot, true, after)
		}
	}
}

// checkDue judges whom Due wants to be replaced.
func (x *explorer) checkDue(g *group, ids []int) {
	in := map[uint8]bool{} // slots in the middle of something, or that will be
	for slot := uint8(1); slot <= g.count; slot++ {
		serve, arrive := g.fresh(slot)
		in[slot] = arrive > 0 || serve == 0 && !g.staleServes(slot)
	}
	for _, id := range ids {
		p := &g.procs[id-1]
		if p.state != Degraded || p.is(stale) || p.slot > g.count || g.slotWaits(p.slot) {
			x.violate("only who is degraded and can be replaced has a turn", "%v in slot %d", p.state, p.slot)
		}
		in[p.slot] = true
	}
	busy := 0
	for _, is := range in {
		if is {
			busy++
		}
	}
	if len(ids) > 0 && busy > x.Surge {
		x.violate("turns are taken Surge at a time", "%d slots are busy", busy)
	}
	for i := range g.all() {
		if len(ids) > 0 && g.procs[i].state == Condemned {
			x.violate("no turn while one is condemned", "slot %d", g.procs[i].slot)
		}
	}
}

func TestDueExamples(t *testing.T) {
	t.Parallel()
	at := func(slot int, s State, since int64) Worker {
		return Worker{Slot: slot, State: s, Since: time.Unix(since, 0)}
	}
	old := func(w Worker) Worker { w.Stale = true; return w }
	three := ws(at(1, Degraded, 7), at(2, Degraded, 5), at(3, Degraded, 6))
	for _, c := range []struct {
		name    string
		workers []Worker
		want    Want
		ids     []int
	}{
		{"nobody", nil, Want{Count: 1}, nil},
		{"nobody is degraded", ws(at(1, Serving, 0)), Want{Count: 1}, nil},
		{"the longest first", three, Want{Count: 3, Surge: 1}, []int{2}},
		{"surge", three, Want{Count: 3, Surge: 2}, []int{2, 3}},
		{"all", three, Want{Count: 3, Surge: 9}, []int{2, 3, 1}},
		{"at least one at a time", three, Want{Count: 3}, []int{2}},
		{"the elder of two", ws(at(1, Degraded, 1), at(2, Degraded, 1)), Want{Count: 2, Surge: 1}, []int{1}},
		{"one is condemned", ws(at(1, Condemned, 1), at(2, Degraded, 1)), Want{Count: 2, Surge: 2}, nil},
		{"one arrives", ws(at(1, Draining, 1), at(1, Starting, 1), at(2, Degraded, 1)), Want{Count: 2, Surge: 1}, nil},
		{"one arrives, surge", ws(at(1, Draining, 1), at(1, Starting, 1), at(2, Degraded, 1)), Want{Count: 2, Surge: 2}, []int{3}},
		{"a slot is empty", ws(at(2, Degraded, 1)), Want{Count: 2, Surge: 1}, nil},
		{"a roll is under way", ws(old(at(1, Serving, 1)), at(1, Starting, 1), at(2, Degraded, 1)), Want{Count: 2, Surge: 1}, nil},
		{"its slot waits", three, Want{Count: 3, Surge: 1, Waits: []int{2}}, []int{3}},
		{"a stale one", ws(old(at(1, Degraded, 1)), at(2, Degraded, 2)), Want{Count: 2, Surge: 1, Halted: true}, []int{2}},
		{"a surplus one", three, Want{Count: 2, Surge: 9}, []int{2, 1}},
		{"a group that is dropped", three, Want{Surge: 9}, nil},
	} {
		if got := Due(c.workers, c.want); !reflect.DeepEqual(got, c.ids) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.ids)
		}
	}
}

// TestDueOfAnyGroup: the order of the workers does not matter, and neither does
// one more of Surge to those who went before.
func TestDueOfAnyGroup(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		group := make([]Worker, rnd.IntN(8))
		for i := range group {
			group[i] = Worker{
				ID: i + 1, Slot: 1 + rnd.IntN(5), State: State(rnd.IntN(int(numStates))),
				Stale: rnd.IntN(4) == 0, Since: time.Unix(rnd.Int64N(3), 0),
			}
			if rnd.IntN(2) == 0 {
				group[i].State = Degraded
			}
		}
		want := Want{Count: rnd.IntN(5), Surge: 1 + rnd.IntN(3), Waits: rnd.Perm(5)[:rnd.IntN(3)]}
		ids := Due(group, want)
		rnd.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		if other := Due(group, want); !reflect.DeepEqual(ids, other) {
			t.Fatalf("%+v: %v or %v", group, ids, other)
		}
		want.Surge++
		more := Due(group, want)
		if len(more) < len(ids) || len(more) > len(ids)+1 || !slices.Equal(more[:len(ids)], ids) {
			t.Fatalf("%+v, %+v: %v, before %v", group, want, more, ids)
		}
	}
}

// TestStorm: whatever clients do, all of a group go on serving, and nobody is
// started; when it is over, all are replaced, one after the other.
func TestStorm(t *testing.T) {
	t.Parallel()
	x := newExplorer(bounds{Count: 3, Surge: 1})
	g := group{count: 3, committed: true}
	x.settle(&g)
	x.rest(&g)
	before := g
	for k := range 1000 {
		i := k % 3
		g.procs[i].has |= waits | cause
		x.react(&g, i, Tolerated)
		if n := x.rest(&g); n != 0 || g.accepting() != 3 {
			t.Fatalf("%d accept, %d were spawned", g.accepting(), n)
		}
	}
	spawned := 0
	for ids := Due(g.workers(), x.want(&g)); len(ids) > 0; ids = Due(g.workers(), x.want(&g)) {
		if len(ids) > 1 {
			t.Fatalf("%d at a time", len(ids))
		}
		g.hurt = true
		x.react(&g, ids[0]-1, Failed)
		spawned += x.rest(&g)
	}
	if x.broken != "" {
		t.Fatalf("%s: %s", x.broken, x.detail)
	}
	if !x.atRest(&g) || spawned != 3 || g != before {
		t.Errorf("%d were spawned, the group is %+v", spawned, g)
	}
}
