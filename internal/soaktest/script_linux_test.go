package soaktest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// deed is something that happens to a service.
type deed string

const (
	upgrade    deed = "upgrade" // HUP
	rollback   deed = "rollback"
	roll       deed = "roll"    // of all workers
	restart    deed = "restart" // of one
	drains     deed = "drain"   // of one
	scale      deed = "scale"
	kill       deed = "kill" // SIGKILL
	stop       deed = "stop" // SIGSTOP, and then SIGCONT
	killAnchor deed = "kill the anchor"
)

// Victims of kill and stop. With one parent the old one is the new one.
var victims = []string{"old parent", "new parent", "worker", "worker", "agent"}

// event is a deed, and how long to wait then for the next.
type event struct {
	deed
	victim string        // of kill and stop
	n      int           // the slot, or the number of workers, or which of several victims
	stands time.Duration // of stop
	pause  time.Duration
	settle bool // wait until all is as it should be instead
}

func (e event) String() string {
	s := string(e.deed)
	switch e.deed {
	case kill:
		s += fmt.Sprintf(" %s %d", e.victim, e.n)
	case stop:
		s += fmt.Sprintf(" %s %d for %v", e.victim, e.n, e.stands)
	case restart, drains, scale:
		s += fmt.Sprintf(" %d", e.n)
	}
	if e.settle {
		return s + ", settle"
	}
	return fmt.Sprintf("%s, %v", s, e.pause)
}

// Lengths of scripts.
const shortScript, longScript = 8, 24

// maxParents is how many parents may die in a script: an anchor waits twice as long each time
// before it starts another one, and all is to be well again in time.
const maxParents = 4

// script makes up what happens.
func script(seed uint64, length int) (list []event) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	deeds := []deed{upgrade, upgrade, upgrade, kill, kill, kill, stop, stop, drains, restart, roll, scale, scale, rollback}
	upTo := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }
	dead, long := 0, false
	for len(list) < length {
		e := event{deed: deeds[rnd.IntN(len(deeds))], n: 1 + rnd.IntN(3), victim: victims[rnd.IntN(len(victims))]}
		if e.deed == kill && strings.HasSuffix(e.victim, "parent") {
			if dead++; dead > maxParents {
				continue
			}
		}
		e.stands = []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond, 6 * time.Second}[rnd.IntN(4)]
		if e.deed == stop && e.stands > time.Second {
			if long || length < longScript {
				e.stands = time.Second
			}
			long = true
		}
		switch k := rnd.IntN(10); {
		case k < 4:
		case k < 6:
			e.pause = upTo(20 * time.Millisecond)
		case k < 8:
			e.pause = upTo(200 * time.Millisecond)
		case k < 9:
			e.pause = upTo(time.Second)
		default:
			e.settle = true
		}
		list = append(list, e)
	}
	if rnd.IntN(4) == 0 && length == longScript {
		list = append(list, event{deed: killAnchor})
	}
	return list
}

// TestScript: a number always makes the same, and all deeds and victims occur.
func TestScript(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		a := script(seed, longScript)
		if b := script(seed, longScript); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%d makes %v, and then %v", seed, a, b)
		}
		for _, e := range a {
			if seen[string(e.deed)] = true; e.deed == kill || e.deed == stop {
				seen[string(e.deed)+" "+e.victim] = true
			}
		}
	}
	if len(seen) != 9+8 {
		t.Errorf("only %v", seen)
	}
}
