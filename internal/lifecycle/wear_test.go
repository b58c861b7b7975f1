package lifecycle

import (
	"slices"
	"testing"
)

// wears are that workers reach a limit. That need not happen, and it is not promised
// whose turn it is then; but when it is somebody's, nobody else may suffer.
func (x *explorer) wears(g *group, yield func(string, uint8, bool, group)) {
	if !x.Wears || g.ops == 0 || g.stopped || !g.committed {
		return
	}
	workers := g.workers()
	for i := range workers {
		workers[i].Wear = 1
		ids := x.wear(workers, x.want(g))
		workers[i].Wear = 0
		x.checkWear(g, ids, i+1)
		if !slices.Contains(ids, i+1) {
			continue
		}
		to := *g
		to.ops--
		to.procs[i].has |= worn
		x.settle(&to)
		yield("reaches a limit", to.procs[i].slot, false, to)
	}
}

// checkWear judges whom Recycle wants to be replaced, of a group in which id alone has
// reached a limit.
func (x *explorer) checkWear(g *group, ids []int, id int) {
	if len(ids) == 0 {
		return
	}
	if !slices.Equal(ids, []int{id}) {
		x.violate("only who has reached a limit is worn", "%v instead of %d", ids, id)
		return
	}
	if p := &g.procs[id-1]; p.state != Serving || p.goes() || p.slot > g.count {
		x.violate("only who serves and stays is worn", "%v in slot %d", p.state, p.slot)
	}
	if waits := x.want(g).Waits; g.halted || len(waits) > 0 {
		x.violate("nobody is worn while something waits", "halted: %v, waits: %v", g.halted, waits)
	}
	busy := 1 // its own slot will be
	for slot := uint8(1); slot <= g.count; slot++ {
		if serve, arrive := g.fresh(slot); serve == 0 || arrive > 0 {
			busy++
		}
	}
	if busy > x.Surge {
		x.violate("the worn are replaced Surge at a time", "%d slots are busy", busy)
	}
	for i := range g.all() {
		p := &g.procs[i]
		if p.is(stale) && p.state < Draining || p.state == Condemned || p.state == Degraded {
			x.violate("nobody is worn during a roll, or while one fails", "%v in slot %d", p.state, p.slot)
		}
	}
}

// brokenWears are Recycle with one rule lost.
var brokenWears = map[string]func([]Worker, Want) []int{
	"all at once": func(ws []Worker, w Want) []int {
		w.Surge = 99
		return Recycle(ws, w)
	},
	"during a roll": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			ws[i].Stale = false
		}
		return Recycle(ws, w)
	},
	"in a stopped roll": func(ws []Worker, w Want) []int {
		w.Halted = false
		return Recycle(ws, w)
	},
	"while a slot waits": func(ws []Worker, w Want) []int {
		w.Waits = nil
		return Recycle(ws, w)
	},
	"the worn again": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			ws[i].Worn = false
		}
		return Recycle(ws, w)
	},
	"the degraded": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			if ws[i].State == Degraded {
				ws[i].State = Serving
			}
		}
		return Recycle(ws, w)
	},
	"who arrives is not waited for": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			if ws[i].State.Arrives() {
				ws[i].State = Serving
			}
		}
		return Recycle(ws, w)
	},
	"the surplus, too": func(ws []Worker, w Want) []int {
		w.Count++
		return Recycle(ws, w)
	},
	"who has not reached a limit": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			ws[i].Wear++
		}
		return Recycle(ws, w)
	},
}

// wearing are bounds within which each of those shows.
func wearing() []bounds {
	return []bounds{
		{Count: 2, Surge: 1, Faults: 1, Ops: 2, Up: true, Wears: true, Waits: true, Limit: 20_000},
		{Count: 2, MaxCount: 3, Surge: 2, Faults: 2, Ops: 2, Up: true, Mild: true, Wears: true},
	}
}

func TestEveryBrokenWearIsCaught(t *testing.T) {
	t.Parallel()
	for name, wear := range brokenWears {
		how := ""
		for _, b := range wearing() {
			x := newExplorer(b)
			x.wear = wear
			if x.run(); x.broken != "" {
				how = x.broken
				break
			}
		}
		if how == "" {
			t.Errorf("survives: %s", name)
		} else {
			t.Logf("%s: %s", name, how)
		}
	}
}

// TestEveryBrokenReplacementIsCaught: what Plan owes the worn.
func TestEveryBrokenReplacementIsCaught(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]func([]Worker, Want) Steps{
		"nobody is worn": func(ws []Worker, w Want) Steps {
			ws = slices.Clone(ws)
			for i := range ws {
				ws[i].Worn = false
			}
			return Plan(ws, w)
		},
		"the worn go first": func(ws []Worker, w Want) Steps {
			steps := Plan(ws, w)
			for _, x := range ws {
				if x.Worn && x.State.Serves() && !slices.Contains(steps.Retire, x.ID) {
					steps.Retire = append(steps.Retire, x.ID)
				}
			}
			return steps
		},
		"the worn stay": func(ws []Worker, w Want) Steps {
			return without(Plan(ws, w), func(id int) bool { return !ws[id-1].Worn }, nil)
		},
	} {
		how := ""
		for _, b := range wearing() {
			x := newExplorer(b)
			x.plan = plan
			if x.run(); x.broken != "" {
				how = x.broken
				break
			}
		}
		if how == "" {
			t.Errorf("survives: %s", name)
		} else {
			t.Logf("%s: %s", name, how)
		}
	}
}
