package lifecycle

import (
	"fmt"
	"sync"
	"testing"
)

// mutant is the table with one thing lost.
type mutant struct {
	state State
	event Event
	cell  cell
	lost  string
}

func (m mutant) next(s State, e Event) (State, Effect) {
	if s == m.state && e == m.event {
		return m.cell.next, m.cell.effect
	}
	return Next(s, e)
}

func (m mutant) String() string { return fmt.Sprintf("%v + %v without %s", m.state, m.event, m.lost) }

// mutants loses, one at a time, every cell that is not stay and every effect.
func mutants() []mutant {
	var ms []mutant
	for s := range numStates {
		for e := range numEvents {
			next, effect := Next(s, e)
			if next == s && effect == 0 {
				continue
			}
			ms = append(ms, mutant{s, e, stay(s), "all"})
			for bit := range Effect(numEffects) {
				if drop := Effect(1) << bit; effect.Has(drop) && (next != s || effect != drop) {
					ms = append(ms, mutant{s, e, cell{next, effect &^ drop}, drop.String()})
				}
			}
		}
	}
	return ms
}

// small are bounds within which nearly every mutant shows, quickest first.
func small() []bounds {
	return []bounds{
		{Count: 1, MaxCount: 2, Surge: 1, Faults: 1, Ops: 1, Fine: true},
		{Count: 2, Surge: 1, Faults: 1, Adopt: heirs()},
		{Count: 1, Surge: 1, Faults: 1, Ops: 1, Adopt: heirs()},
		{Count: 1, MaxCount: 2, Surge: 1, Faults: 2, Ops: 2, Up: true},
		{Count: 2, MaxCount: 3, Surge: 1, Faults: 2, Ops: 1, Up: true},
	}
}

// caught says which promise a table or a plan breaks, "" if none.
func caught(next func(State, Event) (State, Effect), plan func([]Worker, Want) Steps) string {
	for _, b := range small() {
		x := newExplorer(b)
		x.next, x.plan = next, plan
		x.run()
		if x.broken != "" {
			return x.broken
		}
	}
	return rules(next)
}

func TestEveryLossIsCaught(t *testing.T) {
	t.Parallel()
	if how := caught(Next, Plan); how != "" {
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
				if m.lost == Report.String() { // no process sees a report
					how = rules(m.next)
				} else {
					how = caught(m.next, Plan)
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
