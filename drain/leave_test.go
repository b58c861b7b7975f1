package drain

import (
	"testing"
	"testing/quick"
	"time"
)

// TestSay is the table of what handlers of streams are told, and when.
func TestSay(t *testing.T) {
	t.Parallel()
	const s = time.Second
	base := situation{begun: true, moves: true, timeout: 25 * s, lameDuck: 5 * s}
	for _, c := range []struct {
		name string
		set  func(*situation)
		want word
		next time.Duration
	}{
		{"no drain", func(x *situation) { x.begun, x.role = false, Give }, nothing, 0},
		{"nothing can move", func(x *situation) { x.moves, x.role = false, Give }, nowhere, 0},
		{"the service stops", func(x *situation) { x.over, x.role = true, Take }, nowhere, 0},
		{"the queue is broken", func(x *situation) { x.over, x.role = true, Give }, nowhere, 0},
		{"somebody takes", func(x *situation) { x.role = Give }, away, 0},
		{"somebody takes, late", func(x *situation) { x.role, x.since = Give, 24*s }, away, 0},
		{"nobody takes now", func(x *situation) { x.role, x.paused = Give, s }, nothing, s},
		{"nobody takes, almost late", func(x *situation) { x.role, x.paused, x.since = Give, s, 20*s-1 }, nothing, 1},
		{"nobody takes, late", func(x *situation) { x.role, x.paused, x.since = Give, s, 20*s }, nowhere, s},
		{"somebody will take", func(x *situation) { x.role = Keep }, nothing, 20 * s},
		{"nobody has taken", func(x *situation) { x.role, x.since = Keep, 20*s }, nowhere, 0},
		{"nobody has said what to do", func(x *situation) { x.role, x.since = Share, s }, nothing, 4 * s},
		{"nor ever", func(x *situation) { x.role, x.since = Share, 5*s }, nowhere, 0},
		{"staying", func(x *situation) { x.role, x.since = Stay, 5*s }, nowhere, 0},
		{"a short drain", func(x *situation) { x.role, x.timeout = Take, 4*s }, nothing, 2 * s},
	} {
		x := base
		c.set(&x)
		if w, next := x.say(); w != c.want || next != c.next {
			t.Errorf("%s: %v in %v, want %v in %v", c.name, w, next, c.want, c.next)
		}
	}
}

// When it is time to look again, there is something else to say, and every drain ends in
// all having been told.
func TestSayAgain(t *testing.T) {
	t.Parallel()
	check := func(role uint8, paused, since, timeout, lameDuck uint16) bool {
		x := situation{
			begun: true, moves: true, role: Role(role % 5),
			paused: time.Duration(paused), since: time.Duration(since),
			timeout: 1 + time.Duration(timeout), lameDuck: 1 + time.Duration(lameDuck),
		}
		for range 3 {
			w, next := x.say()
			if w != nothing {
				return true
			}
			if next <= 0 || x.since+next > x.timeout {
				return false
			}
			x.since += next
			x.paused -= next
		}
		return false
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 10000}); err != nil {
		t.Error(err)
	}
}
