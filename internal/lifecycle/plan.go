package lifecycle

import (
	"cmp"
	"slices"
	"time"
)

// Worker is what Plan knows of one incarnation.
type Worker struct {
	ID       int // unique in the group, from 1, larger is younger
	Slot     int // 1…count; a replacement has the slot of the one it replaces
	State    State
	Stale    bool // of an older generation, or from before a rolling restart
	Released bool // was told that it may exit
	// Silent: it could say that it does not accept any more, and has not. Only Settled
	// looks at it.
	Silent bool
	// Worn: it has reached a limit, and is to be replaced as a stale one is. If its
	// replacement comes to nothing, that is taken back, and it stays.
	Worn bool
	// Wear is which part of its limits it has used up. Only Recycle looks at it.
	Wear float64
	// Since is when it entered its state. Only Due looks at it.
	Since time.Time
}

// Want is what a group should be.
type Want struct {
	Count int // slots that serve
	Surge int // workers beyond Count while stale ones are replaced, at least 1
	// Halted: a stale worker's replacement could not start, so stale workers
	// that serve are left alone until someone decides anew.
	Halted bool
	// Waits is the slots that get no new worker yet: after one that could not
	// start, or because the group's budget of restarts is used up.
	Waits []int
}

// Steps is what to do next in a group. Once they are carried out, Plan asks for
// nothing more until something happens. No step depends on another, so that
// their order does not matter.
type Steps struct {
	Spawn    []int // slots that get a new worker
	Retire   []int // IDs of workers that get the event Retire
	Replaced []int // IDs of workers that get the event Replaced
}

// Plan compares the workers of one group, given in any order, with what is
// wanted. It is not to be asked once the set stops.
//
// Its promises: a slot has at most one worker that arrives; a stale worker that
// serves is let go only when its replacement serves; at most Surge stale slots
// are being replaced at a time; a failing worker goes on accepting when fewer
// than Count−1 others do, and while its slot waits: better a failing worker than
// none. So of a complete group in which workers fail, but can go on, at least
// Count−1 accept; and all of Count while the slots of those that failed wait.
func Plan(workers []Worker, want Want) Steps {
	var (
		steps       Steps
		accepting   int                // workers that take connections
		fresh       = map[int]Worker{} // slot → the one that serves it or will
		staleServes = map[int]bool{}   // slots that a worker serves which is stale or worn
	)
	workers = slices.SortedFunc(slices.Values(workers), func(a, b Worker) int { return a.ID - b.ID })
	for _, w := range workers {
		if w.State.Accepts() {
			accepting++
		}
		if w.Stale || w.Worn {
			staleServes[w.Slot] = staleServes[w.Slot] || w.State.Serves()
			continue
		}
		if w.State.Serves() || w.State.Arrives() {
			if f, ok := fresh[w.Slot]; !ok || better(w, f) {
				fresh[w.Slot] = w
			}
		}
	}
	steps.Spawn = missing(fresh, staleServes, want)

	covered := func(w Worker) bool {
		f := fresh[w.Slot]
		return f.State.Serves() && f.ID != w.ID
	}
	letGo := func(how *[]int, w Worker) {
		*how = append(*how, w.ID)
		if w.State.Accepts() {
			accepting--
		}
	}
	for _, w := range workers {
		surplus := w.Slot > want.Count
		switch {
		case w.State == Draining && !w.Released && (surplus || covered(w)),
			w.State == Condemned && covered(w):
			letGo(&steps.Replaced, w)
		case w.State.Serves() && covered(w),
			w.State.Arrives() && (surplus || fresh[w.Slot].ID != w.ID):
			letGo(&steps.Retire, w)
		}
	}
	// What follows depends on how many accept, so it comes after those who are
	// let go in any case; and a failing one goes before a surplus one.
	for _, w := range workers {
		switch {
		case w.State != Condemned || covered(w) || accepting < want.Count:
		case w.Slot > want.Count: // nobody will replace it
			letGo(&steps.Replaced, w)
		case !want.waits(w.Slot):
			letGo(&steps.Retire, w)
		}
	}
	for _, w := range workers {
		if w.State.Serves() && !covered(w) && w.Slot > want.Count && accepting > want.Count {
			letGo(&steps.Retire, w)
		}
	}
	return steps
}

// missing is the slots that get a new worker: those that no fresh worker serves
// or will serve, except those that wait, and that stale ones are replaced Surge at
// a time.
func missing(fresh map[int]Worker, staleServes map[int]bool, want Want) []int {
	rolling := 0 // stale slots whose replacement arrives
	for slot, f := range fresh {
		if slot <= want.Count && f.State.Arrives() && staleServes[slot] {
			rolling++
		}
	}
	var slots []int
	for slot := 1; slot <= want.Count; slot++ {
		if _, ok := fresh[slot]; ok || want.waits(slot) {
			continue
		}
		if staleServes[slot] {
			if want.Halted || rolling >= max(want.Surge, 1) {
				continue
			}
			rolling++
		}
		slots = append(slots, slot)
	}
	return slots
}

func (w Want) waits(slot int) bool { return slices.Contains(w.Waits, slot) }

// better reports whether a should hold a slot rather than b.
func better(a, b Worker) bool {
	if a.State.Serves() != b.State.Serves() {
		return a.State.Serves()
	}
	return a.ID > b.ID
}

// Due is the degraded workers, by ID, whose turn it is to be replaced: they get
// the event Failed, as far as the group's budget goes. Ask when Plan's steps have
// been carried out.
//
// Those that have been degraded longest go first, and no more than Surge slots
// are without a serving worker, or about to get another, at a time. Those that are
// condemned already go before all; a stale one is left to the roll, or to the
// decision that a halted one waits for; and where the next worker must wait, a
// degraded one is better than none.
func Due(workers []Worker, want Want) []int {
	var (
		degraded []Worker
		busy     = max(want.Count, 0) // slots, until found served
		served   = map[int]bool{}
		arriving = map[int]bool{}
	)
	for _, w := range workers {
		switch {
		case w.State == Condemned:
			return nil
		case w.State.Arrives():
			arriving[w.Slot] = true
		case w.State.Serves():
			served[w.Slot] = true
		}
		if w.State == Degraded && !w.Stale && !w.Worn && w.Slot <= want.Count && !want.waits(w.Slot) {
			degraded = append(degraded, w)
		}
	}
	for slot := range served {
		if slot <= want.Count && !arriving[slot] {
			busy--
		}
	}
	slices.SortFunc(degraded, func(a, b Worker) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	free := max(want.Surge, 1) - busy
	var ids []int
	for _, w := range degraded[:max(0, min(free, len(degraded)))] {
		ids = append(ids, w.ID)
	}
	return ids
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
