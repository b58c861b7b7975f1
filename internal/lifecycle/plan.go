package lifecycle

import "time"

// Worker is what Plan knows of one incarnation.
type Worker struct {
	ID       int // unique in the group, larger is younger
	Slot     int // 1…count; a replacement has the slot of the one it replaces
	State    State
	Stale    bool // of an older generation, or from before a rolling restart
	Released bool // was told that it may exit
}

// Want is what a group should be.
type Want struct {
	Count int // slots that serve
	Surge int // workers beyond Count while stale ones are replaced, at least 1
	// Halted: a stale worker's replacement could not start, so stale workers
	// that serve are left alone until someone decides anew.
	Halted bool
}

// Steps is what to do next in a group. Carrying a step out changes the workers,
// after which Plan is asked again; it asks for nothing twice.
type Steps struct {
	Spawn    []int // slots that get a new worker
	Retire   []int // IDs of workers that get the event Retire
	Replaced []int // IDs of workers that get the event Replaced
}

// Plan compares the workers of one group with what is wanted.
//
// Its promises: a slot has at most one worker that arrives; a stale worker that
// serves is let go only when its replacement serves; at most Surge stale slots
// are being replaced at a time; a failing worker goes on accepting when fewer
// than Count−1 others do.
func Plan(workers []Worker, want Want) Steps {
	var (
		steps     Steps
		accepting int                // workers that take connections
		fresh     = map[int]Worker{} // slot → the one that serves it or will
		staleSrv  = map[int]bool{}   // slots that a stale worker serves
		rolling   int                // stale slots whose replacement arrives
		retire    = func(w Worker) { // the bookkeeping of letting one go
			steps.Retire = append(steps.Retire, w.ID)
			if w.State.Accepts() {
				accepting--
			}
		}
	)
	for _, w := range workers {
		if w.State.Accepts() {
			accepting++
		}
		if w.Stale {
			staleSrv[w.Slot] = staleSrv[w.Slot] || w.State.Serves()
			continue
		}
		if w.State.Serves() || w.State.Arrives() {
			if f, ok := fresh[w.Slot]; !ok || better(w, f) {
				fresh[w.Slot] = w
			}
		}
	}
	for slot, f := range fresh {
		if slot <= want.Count && f.State.Arrives() && staleSrv[slot] {
			rolling++
		}
	}

	for slot := 1; slot <= want.Count; slot++ {
		if _, ok := fresh[slot]; ok {
			continue
		}
		if staleSrv[slot] {
			if want.Halted || rolling >= max(want.Surge, 1) {
				continue
			}
			rolling++
		}
		steps.Spawn = append(steps.Spawn, slot)
	}

	for _, w := range workers {
		f, covered := fresh[w.Slot]
		covered = covered && f.State.Serves() && f.ID != w.ID
		switch {
		case w.State == Draining && !w.Released && (covered || w.Slot > want.Count):
			steps.Replaced = append(steps.Replaced, w.ID)
		case w.State == Condemned && (covered || w.Slot > want.Count && accepting >= want.Count):
			steps.Replaced = append(steps.Replaced, w.ID)
			accepting--
		case w.State == Condemned && accepting >= want.Count:
			retire(w)
		case w.State.Serves() && w.Slot > want.Count && accepting > want.Count:
			retire(w)
		case w.State.Serves() && covered:
			retire(w)
		case w.State.Arrives() && (w.Slot > want.Count || w.Stale || (f.ID != w.ID && f.ID != 0)):
			retire(w)
		}
	}
	return steps
}

// better reports whether a should hold a slot rather than b.
func better(a, b Worker) bool {
	if a.State.Serves() != b.State.Serves() {
		return a.State.Serves()
	}
	return a.ID > b.ID
}

// Settled reports whether the group is what is wanted: every slot served by one
// fresh worker, nobody else who arrives or accepts. Workers that drain may
// still be there.
func Settled(workers []Worker, want Want) bool {
	served := map[int]bool{}
	for _, w := range workers {
		switch {
		case w.State.Arrives() || w.State == Condemned:
			return false
		case w.State.Serves():
			if w.Slot > want.Count || served[w.Slot] || w.Stale && !want.Halted {
				return false
			}
			served[w.Slot] = true
		}
	}
	return len(served) == want.Count
}

const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 30 * time.Second
)

// Backoff is how long a slot stays empty after n workers in a row that could
// not start: nothing for n ≤ 0, then 100 ms doubling to at most 30 s.
func Backoff(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	if n > 9 { // 100 ms × 2⁹ is beyond the cap already
		return backoffMax
	}
	return min(backoffFirst<<(n-1), backoffMax)
}
