package lifecycle

import (
	"fmt"
	"strings"
	"testing"
)

// bounds say how much of the model is explored.
type bounds struct {
	Count    uint8 // slots at the start, or after the commit
	MaxCount uint8 // slots that an operator scales up to; 0: does not scale
	Surge    int
	Faults   uint8
	Mild     bool     // the only faults are failures that are told, and workers that cannot start
	Ops      uint8    // decisions of an operator
	Wears    bool     // a decision is also a limit that a worker reaches
	Up       bool     // begin with a group that serves, not with nothing
	Fine     bool     // also interleave and disturb the workers that are leaving
	Waits    bool     // a fault may leave the slot waiting
	Freeze   bool     // at any moment everyone may stop to help
	Limit    int      // look no further after so many states; 0: never
	Adopt    [][]proc // begin with a trial worker, whose commit adopts one of these sets
}

// explorer goes breadth first through all states of a group within its bounds.
type explorer struct {
	bounds
	next func(State, Event) (State, Effect)
	plan func([]Worker, Want) Steps
	due  func([]Worker, Want) []int
	// isSettled is Settled.
	isSettled func([]Worker, Want) bool
	wear      func([]Worker, Want) []int

	plans  map[planKey]planned
	seen   map[group]int32
	nodes  []node
	edges  [][2]int32
	broken string // name of the first violated promise
	detail string
}

type node struct {
	group
	from  int32
	label string
	slot  uint8
}

func newExplorer(b bounds) *explorer {
	return &explorer{
		bounds: b, next: Next, plan: Plan, due: Due, isSettled: Settled, wear: Recycle,
		plans: map[planKey]planned{}, seen: map[group]int32{},
	}
}

func (x *explorer) violate(promise, format string, args ...any) {
	if x.broken == "" {
		x.broken, x.detail = promise, fmt.Sprintf(format, args...)
	}
}

// run explores until everything is seen or a promise is broken.
func (x *explorer) run() {
	first := group{count: x.Count, faults: x.Faults, ops: x.Ops, committed: x.Adopt == nil}
	if x.Adopt != nil {
		first.count = 1
	}
	for slot := uint8(1); x.Up && slot <= x.Count; slot++ {
		x.add(&first, proc{state: Serving, armed: unarmed, slot: slot, real: accepts, has: served})
	}
	x.settle(&first)
	x.visit(first, -1, "start", 0)
	for at := 0; at < len(x.nodes) && x.broken == ""; at++ {
		if at == x.Limit-1 {
			return
		}
		fair := false
		g := x.nodes[at].group
		x.moves(&g, func(label string, slot uint8, isFair bool, to group) {
			if x.broken != "" {
				x.explain(node{to, int32(at), label, slot})
				return
			}
			fair = fair || isFair
			if to != g {
				x.visit(to, int32(at), label, slot)
			}
		})
		if !fair && x.broken == "" && !x.atRest(&g) {
			x.violate("comes to rest", "nothing more happens")
			x.detail += x.trace(int32(at))
		}
	}
	if x.broken == "" {
		x.checkCycles()
	}
}

// explain completes the report of the move that broke a promise. Moves that
// were looked at after it are not told.
func (x *explorer) explain(n node) {
	if !strings.Contains(x.detail, "\n") {
		x.nodes = append(x.nodes, n)
		x.detail += x.trace(int32(len(x.nodes) - 1))
	}
}

func (x *explorer) visit(g group, from int32, label string, slot uint8) {
	id, ok := x.seen[g]
	if !ok {
		id = int32(len(x.nodes))
		x.seen[g] = id
		x.nodes = append(x.nodes, node{g, from, label, slot})
	}
	if from >= 0 {
		x.edges = append(x.edges, [2]int32{from, id})
	}
}

// checkCycles: with faults and decisions used up the group cannot go on for
// ever, whoever is scheduled when. Together with "comes to rest" that is
// liveness under every schedule.
func (x *explorer) checkCycles() {
	in := make([]int32, len(x.nodes))
	first := make([]int32, len(x.nodes)+1)
	for _, e := range x.edges { // in the order of their first ends
		in[e[1]]++
		first[e[0]+1]++
	}
	for i := range x.nodes {
		first[i+1] += first[i]
	}
	free := []int32{}
	for i, n := range in {
		if n == 0 {
			free = append(free, int32(i))
		}
	}
	for done := 0; done < len(free); done++ {
		n := free[done]
		for _, e := range x.edges[first[n]:first[n+1]] {
			if in[e[1]]--; in[e[1]] == 0 {
				free = append(free, e[1])
			}
		}
	}
	for i, n := range in {
		if n > 0 {
			x.violate("comes to rest", "goes round in circles")
			x.detail += x.trace(int32(i))
			return
		}
	}
}

// trace tells how a state was reached.
func (x *explorer) trace(at int32) string {
	if at < 0 {
		return ""
	}
	n := &x.nodes[at]
	var b strings.Builder
	b.WriteString(x.trace(n.from))
	fmt.Fprintf(&b, "\n%s (slot %d):", n.label, n.slot)
	for i, p := range n.all() {
		var has []string
		for k, name := range bitNames {
			if p.has&(1<<k) != 0 {
				has = append(has, name)
			}
		}
		armed := ""
		if p.armed != unarmed {
			armed = " armed:" + p.armed.String()
		}
		fmt.Fprintf(&b, "\n    %d slot %d %v/%s%s %v", i+1, p.slot, p.state, realNames[p.real], armed, has)
	}
	return b.String()
}

// heirs are sets of workers that a new parent may find.
func heirs() [][]proc {
	of := func(ps ...proc) []proc { return ps }
	w := func(slot uint8, r real, has bits) proc { return proc{slot: slot, real: r, has: has} }
	return [][]proc{
		of(w(1, accepts, 0), w(2, accepts, 0)),
		of(w(1, booting, 0), w(2, accepts, 0)),
		of(w(1, accepts, 0), w(2, booting, 0)),
		of(w(1, accepts, 0), w(2, waiting, 0)),
		of(w(1, accepts, 0), w(2, accepts, waits|cause), w(2, booting, 0)),
		of(w(1, accepts, 0), w(2, accepts, waits|cause)),
		of(w(1, accepts, cause), w(2, accepts, cause)),
		of(w(1, finished, 0), w(1, booting, 0), w(2, accepts, 0)),
		of(w(1, accepts, 0), w(2, finishing, 0), w(2, waiting, 0)),
		of(w(1, accepts, 0), w(2, accepts, stuck), w(2, accepts, 0)),
		of(w(1, accepts, 0), w(3, accepts, 0)),
	}
}

func explorations() map[string]bounds {
	return map[string]bounds{
		"start":    {Count: 2, Surge: 1, Faults: 2, Ops: 0, Waits: true},
		"one":      {Count: 1, MaxCount: 2, Surge: 1, Faults: 2, Ops: 2, Up: true},
		"fine":     {Count: 1, MaxCount: 2, Surge: 1, Faults: 1, Ops: 2, Fine: true},
		"two":      {Count: 2, MaxCount: 3, Surge: 1, Faults: 2, Ops: 1, Up: true},
		"three":    {Count: 3, Surge: 2, Faults: 1, Ops: 1, Up: true, Waits: true},
		"failures": {Count: 3, Surge: 1, Faults: 3, Ops: 1, Up: true, Mild: true},
		"storm":    {Count: 3, Surge: 2, Faults: 4, Up: true, Mild: true, Waits: true},
		"queue":    {Count: 2, MaxCount: 1, Surge: 1, Faults: 2, Ops: 1, Up: true, Waits: true},
		"upgrade":  {Count: 2, MaxCount: 2, Surge: 1, Faults: 1, Ops: 1, Adopt: heirs(), Waits: true},
		"worn":     {Count: 2, MaxCount: 3, Surge: 1, Faults: 1, Ops: 2, Up: true, Wears: true, Waits: true},
		"wearing":  {Count: 3, Surge: 2, Faults: 1, Ops: 2, Up: true, Wears: true},
		"frozen":   {Count: 2, MaxCount: 3, Surge: 1, Faults: 1, Ops: 1, Freeze: true, Up: true},
	}
}

func TestExplore(t *testing.T) {
	for name, b := range explorations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newExplorer(b)
			x.run()
			if x.broken != "" {
				t.Fatalf("%s: %s", x.broken, x.detail)
			}
			t.Logf("%d states, %d transitions", len(x.nodes), len(x.edges))
		})
	}
}
