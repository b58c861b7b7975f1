package lifecycle

import "slices"

// Settled reports whether the group is what is wanted: every slot is, and nobody else
// arrives or accepts. Workers that drain may still be there.
func Settled(workers []Worker, want Want) bool {
	for slot := 1; slot <= want.Count; slot++ {
		if !SlotSettled(workers, want, slot) {
			return false
		}
	}
	for _, w := range workers {
		if w.Slot > want.Count && !SlotSettled(workers, want, w.Slot) {
			return false
		}
	}
	return true
}

// SlotSettled reports whether a slot is what is wanted: served by one fresh worker, or
// by nobody if it is surplus, and nobody else arrives or accepts in it. In a halted roll
// it may be served by stale workers instead, also by several that were adopted. A worn one
// serves its slot as well as any: nobody is to wait for what it does not need.
//
// To be told to drain is one thing, not to accept any more another: of one that can say
// so it counts that it has said it. Whoever does not is killed in the end, by the
// deadlines, and who was killed accepts nothing.
func SlotSettled(workers []Worker, want Want, slot int) bool {
	fresh, stale := 0, 0
	worn := slot <= want.Count && slices.ContainsFunc(workers, func(w Worker) bool {
		return w.Slot == slot && w.Worn && !w.Stale && w.State.Serves()
	})
	for _, w := range workers {
		switch {
		case w.Slot != slot, worn && w.State.Arrives():
		case w.State.Arrives() || w.State == Condemned || w.mayAccept():
			return false
		case !w.State.Serves():
		case w.Stale:
			stale++
		default:
			fresh++
		}
	}
	if slot > want.Count {
		return fresh+stale == 0
	}
	return fresh == 1 && stale == 0 || fresh == 0 && stale > 0 && want.Halted
}

// mayAccept: it was told to drain, and is not known to do so.
func (w Worker) mayAccept() bool {
	return w.Silent && (w.State == Draining || w.State == Terminating)
}
