package lifecycle

import "testing"

func TestRedirect(t *testing.T) {
	n := 0
	for s := range numStates {
		for e := range numEvents {
			next, effect := Next(s, e)
			if next == s && effect == 0 {
				for _, to := range []State{Spawning, Starting, Standby, Serving, Degraded, Condemned, Draining, Terminating, Killing, Exited} {
					if to == s {
						continue
					}
					n++
					if caught(mutant{s, e, cell{to, 0}, "to"}.next, Plan) == "" {
						t.Logf("stay: %v + %v -> %v survives", s, e, to)
					}
				}
				continue
			}
			for to := range numStates {
				if to == next {
					continue
				}
				n++
				if caught(mutant{s, e, cell{to, effect}, "to"}.next, Plan) == "" {
					t.Logf("%v + %v -> %v survives", s, e, to)
				}
			}
		}
	}
	t.Log(n)
}
