package handover

import (
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// TestTally: what counts as a failure of a generation, and when it is one too many.
func TestTally(t *testing.T) {
	w := func(id int, state, cause string) workerset.Worker {
		return workerset.Worker{Group: "web", Slot: 1, ID: id, State: state, Cause: cause, Reason: "no luck"}
	}
	stale := w(9, "exited", "crash")
	stale.Stale = true
	sick := errors.New("/healthz answers 500")
	for name, c := range map[string]struct {
		allowed int
		changes []any
		want    string // a part of the verdict; "": it goes on
	}{
		"nothing":              {0, nil, ""},
		"orderly":              {0, []any{w(1, "serving", ""), w(1, "draining", "retire"), w(1, "exited", "retire")}, ""},
		"of the one before":    {0, []any{stale}, ""},
		"one that is allowed":  {1, []any{w(1, "exited", "crash")}, ""},
		"one that is not":      {0, []any{w(1, "exited", "crash")}, "1 failures, and 0 are allowed; the last one: worker web/1 (id 1): crash: no luck"},
		"the same one":         {1, []any{w(1, "condemned", "error"), w(1, "draining", "error"), w(1, "exited", "error")}, ""},
		"two":                  {1, []any{w(1, "exited", "signal"), w(2, "terminating", "hung")}, "2 failures, and 1 are allowed; the last one: worker web/1 (id 2): hung"},
		"degraded":             {0, []any{w(1, "degraded", "")}, "degraded"},
		"degraded, then worse": {1, []any{w(1, "degraded", ""), w(1, "exited", "exit")}, ""},
		"sick":                 {0, []any{sick}, "not healthy: /healthz answers 500"},
		"sick and dead":        {1, []any{sick, w(1, "exited", "exit")}, "2 failures"},
		"sick twice":           {1, []any{sick, sick}, "2 failures"},
		"did not start":        {0, []any{w(1, "exited", "start-exit")}, "start-exit"},
	} {
		tally := tally{allowed: c.allowed}
		got := ""
		for i, change := range c.changes {
			if got != "" {
				t.Errorf("%s: over after %d of %d", name, i, len(c.changes))
			}
			switch v := change.(type) {
			case workerset.Worker:
				got = tally.saw(v)
			case error:
				got = tally.unhealthy(v)
			}
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}

// TestOutcome: what those who watch are told in the end, and what is left to be told later.
func TestOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		back           *back
		result         control.Result
		watch, undone  control.Result // what is told
		outcome, again control.Result // what is kept of a roll, and of what was final before
		proven         bool
	}{
		"an upgrade":    {nil, control.Done, control.Done, control.Done, control.Done, control.Failed, true},
		"half way":      {nil, control.Stopped, control.Stopped, control.Stopped, control.Stopped, control.Failed, false},
		"a way back":    {&back{Reason: "asked"}, control.Done, control.Done, control.RolledBack, control.Done, control.Failed, true},
		"one by itself": {&back{Failed: 2, Reason: "sick"}, control.Done, control.Done, control.RolledBack, control.RolledBack, control.Failed, true},
		"one half way":  {&back{Failed: 2, Reason: "sick"}, control.Stopped, control.Stopped, control.Stopped, control.Stopped, control.Failed, false},
	} {
		for _, before := range []control.Result{control.Rolling, control.Probation, control.Failed} {
			o := &control.Outcome{Generation: 2, Result: before, Until: time.Now()}
			p := &parent{up: &upgrader.Upgrader{}, back: c.back, supervisor: &supervisor{news: make(chan struct{}, 1)}}
			u := newUpgrades(p)
			u.last = o
			var told []control.Result
			var others []net.Conn
			for _, undone := range []bool{false, true} {
				f, other := watching(t)
				w, err := control.ResumeWatcher(f)
				if err != nil {
					t.Fatal(err)
				}
				u.watches, others = append(u.watches, watch{watcher: w, undone: undone}), append(others, other)
			}
			u.finish(control.Event{Result: c.result, Reason: "why"})
			for _, c := range others {
				var ev control.Event
				if err := json.NewDecoder(c).Decode(&ev); err != nil {
					t.Fatal(err)
				}
				told = append(told, ev.Result)
			}
			want := c.outcome
			if before.Final() {
				want = c.again
			}
			if told[0] != c.watch || told[1] != c.undone || o.Result != want || u.proven != c.proven {
				t.Errorf("%s, %s before: told %v, kept %s, proven %v", name, before, told, o.Result, u.proven)
			}
			if !before.Final() && !o.Until.IsZero() {
				t.Errorf("%s: still until %v", name, o.Until)
			}
		}
	}
}
