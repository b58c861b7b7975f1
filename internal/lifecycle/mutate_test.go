package lifecycle

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// mutant is the table with one thing lost or changed.
type mutant struct {
	state State
	event Event
	cell  cell
	how   string
}

func (m mutant) next(s State, e Event) (State, Effect) {
	if s == m.state && e == m.event {
		return m.cell.next, m.cell.effect
	}
	return Next(s, e)
}

func (m mutant) String() string { return fmt.Sprintf("%v + %v %s", m.state, m.event, m.how) }

// mutants loses, one at a time, every cell that is not stay and every effect. What
// becomes of a failure is also changed: to every other state, and to the other
// answer.
func mutants() []mutant {
	var ms []mutant
	for s := range numStates {
		for e := range numEvents {
			next, effect := Next(s, e)
			if next == s && effect == 0 {
				continue
			}
			ms = append(ms, mutant{s, e, stay(s), "without all"})
			for bit := range Effect(numEffects) {
				if drop := Effect(1) << bit; effect.Has(drop) && (next != s || effect != drop) {
					ms = append(ms, mutant{s, e, cell{next, effect &^ drop}, "without " + drop.String()})
				}
			}
			for to := range numStates {
				if to != next && (e == Failed || e == Tolerated) {
					ms = append(ms, mutant{s, e, cell{to, effect}, "enters " + to.String()})
				}
			}
			if answer := effect & (SendHold | SendForgive); answer != 0 {
				other := effect ^ (SendHold | SendForgive)
				ms = append(ms, mutant{s, e, cell{next, other}, "with the other answer"})
			}
		}
	}
	return ms
}

// small are bounds within which nearly every mutant shows, quickest first.
func small() []bounds {
	return []bounds{
		{Count: 1, MaxCount: 2, Surge: 1, Faults: 2, Ops: 2, Up: true, Limit: 1000},
		{Count: 2, Surge: 1, Faults: 3, Up: true, Mild: true, Waits: true, Limit: 1000},
		{Count: 1, MaxCount: 2, Surge: 1, Faults: 1, Ops: 1, Fine: true},
		{Count: 2, Surge: 1, Faults: 1, Adopt: heirs()},
		{Count: 1, Surge: 1, Faults: 1, Ops: 1, Adopt: heirs()},
		{Count: 1, MaxCount: 2, Surge: 1, Faults: 2, Ops: 2, Up: true},
	}
}

// caught says which promise is broken when something is replaced, "" if none.
func caught(replace func(*explorer)) string {
	for _, b := range small() {
		x := newExplorer(b)
		replace(x)
		x.run()
		if x.broken != "" {
			return x.broken
		}
	}
	x := newExplorer(bounds{})
	replace(x)
	return rules(x.next)
}

func TestEveryLossIsCaught(t *testing.T) {
	t.Parallel()
	if how := caught(func(*explorer) {}); how != "" {
		t.Fatalf("nothing is lost, and yet: %s", how)
	}
	var (
		mu     sync.Mutex
		by     = map[string]int{}
		ms     = mutants()
		groups sync.WaitGroup
	)
	for part := range 2 {
		groups.Go(func() {
			for i := part; i < len(ms); i += 2 {
				m, how := ms[i], ""
				if m.how == "without report" { // no process sees a report
					how = rules(m.next)
				} else {
					how = caught(func(x *explorer) { x.next = m.next })
				}
				if how == "" {
					t.Errorf("survives: %v", m)
				}
				mu.Lock()
				by[how]++
				mu.Unlock()
			}
		})
	}
	groups.Wait()
	t.Logf("%d mutants; caught by:", len(ms))
	for promise, n := range by {
		t.Logf("%4d %s", n, promise)
	}
}

// brokenPlans are plans with one rule lost.
var brokenPlans = map[string]func([]Worker, Want) Steps{
	"any number of stale workers at a time": func(ws []Worker, w Want) Steps {
		w.Surge = 99
		return Plan(ws, w)
	},
	"a halted roll goes on": func(ws []Worker, w Want) Steps {
		w.Halted = false
		return Plan(ws, w)
	},
	"a roll never begins": func(ws []Worker, w Want) Steps {
		w.Halted = true
		return Plan(ws, w)
	},
	"whoever fails drains": func(ws []Worker, w Want) Steps {
		steps := Plan(ws, w)
		for _, x := range ws {
			if x.State == Condemned && !slices.Contains(steps.Retire, x.ID) && !slices.Contains(steps.Replaced, x.ID) {
				steps.Retire = append(steps.Retire, x.ID)
			}
		}
		return steps
	},
	"whoever fails accepts until its replacement serves": func(ws []Worker, w Want) Steps {
		return without(Plan(ws, w), func(id int) bool { return ws[id-1].State != Condemned }, nil)
	},
	"whoever fails drains although its slot waits": func(ws []Worker, w Want) Steps {
		steps := Plan(ws, w)
		steps.Retire = Plan(ws, Want{Count: w.Count, Surge: w.Surge, Halted: w.Halted}).Retire
		return steps
	},
	"no slot waits": func(ws []Worker, w Want) Steps {
		steps := Plan(ws, w)
		steps.Spawn = Plan(ws, Want{Count: w.Count, Surge: w.Surge, Halted: w.Halted}).Spawn
		return steps
	},
	"nobody hears of his replacement": func(ws []Worker, w Want) Steps {
		return without(Plan(ws, w), nil, func(int) bool { return false })
	},
	"the condemned do not hear of their replacement": func(ws []Worker, w Want) Steps {
		return without(Plan(ws, w), nil, func(id int) bool { return ws[id-1].State != Condemned })
	},
	"the stale stay": func(ws []Worker, w Want) Steps {
		return without(Plan(ws, w), func(id int) bool { return !ws[id-1].State.Serves() || ws[id-1].Slot > w.Count }, nil)
	},
	"the surplus stay": func(ws []Worker, w Want) Steps {
		return without(Plan(ws, w), func(id int) bool { return ws[id-1].Slot <= w.Count }, nil)
	},
	"the surplus wait for nobody": func(ws []Worker, w Want) Steps {
		steps := Plan(ws, w)
		for _, x := range ws {
			if x.State.Serves() && x.Slot > w.Count && !slices.Contains(steps.Retire, x.ID) {
				steps.Retire = append(steps.Retire, x.ID)
			}
		}
		return steps
	},
	"who is stale and arrives stays": func(ws []Worker, w Want) Steps {
		return without(Plan(ws, w), func(id int) bool { return !ws[id-1].State.Arrives() }, nil)
	},
	"who arrives is not seen": func(ws []Worker, w Want) Steps {
		return Plan(slices.DeleteFunc(slices.Clone(ws), func(x Worker) bool { return x.State.Arrives() }), w)
	},
	"who arrives is taken for serving": func(ws []Worker, w Want) Steps {
		ws = slices.Clone(ws)
		for i := range ws {
			if ws[i].State == Starting && !ws[i].Stale {
				ws[i].State = Serving
			}
		}
		return Plan(ws, w)
	},
	"nobody is stale": func(ws []Worker, w Want) Steps {
		ws = slices.Clone(ws)
		for i := range ws {
			ws[i].Stale = false
		}
		return Plan(ws, w)
	},
	"who has failed needs no replacement": func(ws []Worker, w Want) Steps {
		steps := Plan(ws, w)
		steps.Spawn = slices.DeleteFunc(slices.Clone(steps.Spawn), func(slot int) bool {
			return slices.ContainsFunc(ws, func(x Worker) bool { return x.Slot == slot && x.State == Condemned })
		})
		return steps
	},
}

// brokenDues are turns with one rule lost.
var brokenDues = map[string]func([]Worker, Want) []int{
	"nobody has a turn": func([]Worker, Want) []int { return nil },
	"all at once": func(ws []Worker, w Want) []int {
		w.Surge = 99
		return Due(ws, w)
	},
	"the condemned are not waited for": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			if ws[i].State == Condemned {
				ws[i].State = Serving
			}
		}
		return Due(ws, w)
	},
	"who arrives is not waited for": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			if ws[i].State.Arrives() {
				ws[i].State = Serving
			}
		}
		return Due(ws, w)
	},
	"an empty slot is not waited for": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for slot := range w.Count {
			ws = append(ws, Worker{Slot: slot + 1, State: Serving})
		}
		return Due(ws, w)
	},
	"no slot waits": func(ws []Worker, w Want) []int {
		w.Waits = nil
		return Due(ws, w)
	},
	"nobody is stale": func(ws []Worker, w Want) []int {
		ws = slices.Clone(ws)
		for i := range ws {
			ws[i].Stale = false
		}
		return Due(ws, w)
	},
	"the surplus, too": func(ws []Worker, w Want) []int {
		w.Count++
		return Due(ws, w)
	},
}

func TestEveryBrokenTurnIsCaught(t *testing.T) {
	t.Parallel()
	for name, due := range brokenDues {
		if how := caught(func(x *explorer) { x.due = due }); how == "" {
			t.Errorf("survives: %s", name)
		} else {
			t.Logf("%s: %s", name, how)
		}
	}
}

// without keeps the steps about the workers that the functions keep, nil for all.
func without(s Steps, retire, replaced func(int) bool) Steps {
	keep := func(ids []int, ok func(int) bool) []int {
		return slices.DeleteFunc(slices.Clone(ids), func(id int) bool { return ok != nil && !ok(id) })
	}
	return Steps{Spawn: s.Spawn, Retire: keep(s.Retire, retire), Replaced: keep(s.Replaced, replaced)}
}

func TestEveryBrokenPlanIsCaught(t *testing.T) {
	t.Parallel()
	for name, plan := range brokenPlans {
		if how := caught(func(x *explorer) { x.plan = plan }); how == "" {
			t.Errorf("survives: %s", name)
		} else {
			t.Logf("%s: %s", name, how)
		}
	}
}
