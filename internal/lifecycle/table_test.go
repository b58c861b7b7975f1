package lifecycle

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write TABLE.md")

func TestEveryCellIsWritten(t *testing.T) {
	t.Parallel()
	for s := range numStates {
		if len(table[s]) != int(numEvents) {
			t.Errorf("%v has %d entries, there are %d events", s, len(table[s]), numEvents)
		}
		for e := range numEvents {
			c, ok := table[s][e]
			if !ok {
				t.Errorf("%v + %v is not written", s, e)
			}
			if c.next >= numStates || c.effect >= 1<<numEffects {
				t.Errorf("%v + %v leads to %v with %#x", s, e, c.next, uint16(c.effect))
			}
		}
	}
}

func TestNamesAreCompleteAndUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	unique := func(name string) {
		if name == "" || strings.Contains(name, "(") || seen[name] {
			t.Errorf("name %q", name)
		}
		seen[name] = true
	}
	for s := range numStates {
		unique(s.String())
	}
	clear(seen)
	for e := range numEvents {
		unique(e.String())
	}
	clear(seen)
	for i := range numEffects {
		unique(Effect(1 << i).String())
	}
	if got := (Arm | SendDrain | SignalKill).String(); got != "arm+drain+SIGKILL" {
		t.Errorf("effects are called %q", got)
	}
	if got := numStates.String() + numEvents.String(); got != "state(10)event(17)" {
		t.Errorf("unknown ones are called %q", got)
	}
}

func TestNextPanicsOutsideTheTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s State
		e Event
	}{{numStates, Died}, {Serving, numEvents}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v + %v has an answer", c.s, c.e)
				}
			}()
			Next(c.s, c.e)
		}()
	}
}

func TestKindsOfStates(t *testing.T) {
	t.Parallel()
	for s := range numStates {
		if s.Serves() && !s.Accepts() || s.Serves() && s.Arrives() || s.Accepts() && s.Arrives() {
			t.Errorf("%v: accepts %v, serves %v, arrives %v", s, s.Accepts(), s.Serves(), s.Arrives())
		}
	}
}

// TestAnyEventAnyTime lets everything happen to one worker in every order, also
// what no worker and no parent ever does, except that a deadline passes only
// when it is armed.
func TestAnyEventAnyTime(t *testing.T) {
	t.Parallel()
	type life struct {
		state State
		armed bool
		born  bool
	}
	seen := map[life]bool{{}: true}
	for todo := []life{{}}; len(todo) > 0; todo = todo[1:] {
		l := todo[0]
		if needs := timed(l.state) && l.born; l.armed != needs {
			t.Errorf("%+v: the deadline is armed or forgotten", l)
		}
		for e := range numEvents {
			if e == Deadline && !l.armed ||
				l.born && (e == SpawnFailed || e == Adopted) || // those are births
				!l.born && e == Adopted && l.state != Spawning { // at once, or never
				continue
			}
			next, effect := Next(l.state, e)
			to := life{next, l.armed && e != Deadline, l.born || (e == Spawned || e == Adopted) && l.state != Exited}
			if effect.Has(Disarm) {
				to.armed = false
			}
			if effect.Has(Arm) {
				to.armed = true
			}
			turnedOut := l.state.Serves() && e == Spawned
			if next < l.state && !turnedOut {
				t.Errorf("%v + %v goes back to %v", l.state, e, next)
			}
			if l.state == Exited && (next != Exited || effect != 0) {
				t.Errorf("a worker that is gone: %v enters %v with %v", e, next, effect)
			}
			if (e == Died || e == SpawnFailed && !l.born) && next != Exited {
				t.Errorf("%v + %v enters %v", l.state, e, next)
			}
			if !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	t.Logf("%d situations", len(seen))
}

// TestDeadlinesEndEveryone: with nothing but deadlines a worker in a state that
// has one comes to be killed, after being asked in another way first.
func TestDeadlinesEndEveryone(t *testing.T) {
	t.Parallel()
	for s := range numStates {
		if !timed(s) {
			continue
		}
		at, told := s, Effect(0)
		for range 3 {
			var effect Effect
			at, effect = Next(at, Deadline)
			if effect.Has(SignalKill) && s < Terminating && !told.Has(SignalTerm) {
				t.Errorf("from %v: SIGKILL before SIGTERM", s)
			}
			told |= effect
		}
		if at != Killing || !told.Has(SignalKill) {
			t.Errorf("from %v three deadlines lead to %v with %v", s, at, told)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	if broken := rules(Next); broken != "" {
		t.Error(broken)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	const file = "TABLE.md"
	if *update {
		if err := os.WriteFile(file, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != Markdown() {
		t.Errorf("%s is not the table (%v): go test ./internal/lifecycle -update", file, err)
	}
}
