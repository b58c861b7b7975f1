package lifecycle

// rules checks what no process and no other worker feels, so that no
// exploration can miss it: who is reported, and what telling a worker twice
// does. It returns the first rule that is broken, or "".
func rules(next func(State, Event) (State, Effect)) string {
	for s := range numStates {
		for e := range numEvents {
			to, effect := next(s, e)
			if effect.Has(Report) != reported(s, e, to) {
				return "rule: what is reported"
			}
		}
	}
	for _, e := range []Event{Retire, Stop} {
		if to, effect := next(Draining, e); to != Draining || effect != SendDrain|SendExit {
			return "rule: who drains and is not wanted is told all"
		}
	}
	return ""
}

// reported is the rule for reports: the births and ends that count, and what a
// worker did that nobody asked it for. What the parent itself decided, it knows;
// a channel that ends is explained by what follows it.
func reported(s State, e Event, to State) bool {
	switch {
	case s != to && (to == Serving && e != Ready || to == Degraded || to == Condemned || to == Terminating || to == Exited):
		return true
	case s < Draining && to == Draining:
		return e == Failed || e == Leaving || e == Drained
	case to == Killing:
		return e == Deadline
	}
	return false
}
