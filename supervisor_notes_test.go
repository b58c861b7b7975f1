package handover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// seen is a view of a service with workers of these states, "serving" or "serving/1", with
// the generation.
func seen(generation int, states ...string) view {
	v := view{answers: true, decides: true}
	v.Generation = generation
	g := workerset.GroupStatus{Name: "web", Count: 2, Sockets: []string{"http"}}
	for _, s := range states {
		state, of, _ := strings.Cut(s, "/")
		w := workerset.Worker{State: state, Generation: generation}
		if of == "old" {
			w.Generation--
		}
		g.Workers = append(g.Workers, w)
	}
	v.Groups = []workerset.GroupStatus{g}
	return v
}

func TestSupervisorText(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 3, 4, 0, time.Local)
	with := func(v view, f func(*view)) view { f(&v); return v }
	for _, c := range []struct {
		v    view
		want string
	}{
		{with(seen(1, "starting"), func(v *view) { v.decides = false }), "starts"},
		{seen(1, "serving", "starting"), "generation 1: 1 of 2 workers serve"},
		{seen(1, "serving", "degraded"), "generation 1: 2 of 2 workers serve"},
		{seen(3, "serving", "serving/old", "draining/old", "exited/old"), "generation 3: 1 of 2 workers serve, 2 of older generations are left"},
		{with(seen(2, "serving", "serving"), func(v *view) { v.upgrading = true; v.last = &control.Outcome{Result: control.Done} }),
			"generation 2: 2 of 2 workers serve; upgrade to generation 3 under way"},
		{with(seen(2, "serving", "serving/old"), func(v *view) { v.last = &control.Outcome{Result: control.Rolling} }),
			"generation 2: 1 of 2 workers serve, 1 of older generations are left"},
		{with(seen(2, "serving", "serving"), func(v *view) { v.last = &control.Outcome{Result: control.Done, Time: at} }),
			"generation 2: 2 of 2 workers serve; upgraded 2026-11-29 12:03:04"},
		{with(seen(2, "serving", "serving"), func(v *view) {
			v.last = &control.Outcome{Result: control.Probation, Generation: 2, Until: at}
		}), "generation 2: 2 of 2 workers serve; on probation until 2026-11-29 12:03:04"},
		{with(seen(2, "serving", "serving"), func(v *view) {
			v.last = &control.Outcome{Result: control.Failed, Generation: 3, Time: at, Reason: "no tables"}
		}), "generation 2: 2 of 2 workers serve; upgrade to generation 3 failed 2026-11-29 12:03:04: no tables"},
		{with(seen(2, "serving", "serving"), func(v *view) {
			v.Groups = append(v.Groups, workerset.GroupStatus{Name: "agent", Count: 1})
		}), "generation 2: 2 of 2 workers of web serve, 0 of 1 workers of agent serve"},
		{with(seen(2, "draining", "exited", "draining"), func(v *view) { v.Stopping = true }), "stops: workers left: 2"},
		{with(seen(2, "exited"), func(v *view) { v.Stopping = true }), "stops"},
	} {
		if got := c.v.text(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestSupervisorTalk is a service's life as its supervisor hears of it.
func TestSupervisorTalk(t *testing.T) {
	now := time.Unix(1000, 0)
	c := conversation{watchdog: 4 * time.Second}
	starts, serves := seen(1, "starting"), seen(1, "serving", "serving")
	starts.decides = false
	hangs, yields, upgrades, rolls, stops := serves, serves, serves, serves, serves
	hangs.answers, hangs.Status = false, workerset.Status{}
	yields.gives, yields.upgrading = true, true
	upgrades.upgrading = true
	rolls.last = &control.Outcome{Result: control.Rolling}
	stops.Stopping = true
	const more = "EXTEND_TIMEOUT_USEC=10000000"
	const text = "STATUS=generation 1: 2 of 2 workers serve"
	for i, step := range []struct {
		after time.Duration
		v     view
		want  []string
		again time.Duration
	}{
		{0, starts, []string{more, "STATUS=starts"}, time.Second},
		{time.Second, starts, nil, time.Second},
		{1500 * time.Millisecond, starts, []string{more}, time.Second},
		{time.Second, serves, []string{"WATCHDOG=1", text}, time.Second},
		{999 * time.Millisecond, serves, nil, time.Millisecond},
		{time.Millisecond, serves, []string{"WATCHDOG=1"}, time.Second},
		{time.Second, hangs, nil, time.Second},
		{time.Second, serves, []string{"WATCHDOG=1"}, time.Second},
		{time.Second, upgrades, []string{"WATCHDOG=1", more, text + "; upgrade to generation 2 under way"}, time.Second},
		{time.Second, yields, []string{"WATCHDOG=1"}, time.Second}, // it may not be the main process any more
		{500 * time.Millisecond, upgrades, nil, 500 * time.Millisecond},
		{time.Second, upgrades, []string{"WATCHDOG=1", more}, time.Second},
		{time.Second, serves, []string{"WATCHDOG=1", text}, time.Second},
		{time.Second, upgrades, []string{"WATCHDOG=1", more, text + "; upgrade to generation 2 under way"}, time.Second},
		{time.Second, rolls, []string{"WATCHDOG=1", text}, time.Second},
		{1500 * time.Millisecond, rolls, []string{"WATCHDOG=1", more}, time.Second},
		{time.Second, stops, []string{"WATCHDOG=1", "STOPPING=1", more, "STATUS=stops: workers left: 2"}, time.Second},
		{time.Second, stops, []string{"WATCHDOG=1"}, time.Second},
		{1500 * time.Millisecond, stops, []string{"WATCHDOG=1", more}, time.Second},
	} {
		now = now.Add(step.after)
		got, again := c.say(step.v, now)
		if !slices.Equal(got, step.want) || again != step.again {
			t.Errorf("step %d: %q, again in %v, want %q and %v", i, got, again, step.want, step.again)
		}
	}
	// That it stops is said even if nothing else is known any more.
	late := conversation{}
	ended := view{Status: workerset.Status{Stopping: true}}
	if got, _ := late.say(ended, now); !slices.Equal(got, []string{"STOPPING=1"}) {
		t.Errorf("%q", got)
	}
	ended.gives = true
	if got, _ := (&conversation{}).say(ended, now); len(got) > 0 {
		t.Errorf("another one decides, and it says %q", got)
	}
	// Without a watchdog nobody looks while nothing happens.
	quiet := conversation{}
	if got, again := quiet.say(serves, now); !slices.Equal(got, []string{text}) || again < time.Hour {
		t.Errorf("%q, again in %v", got, again)
	}
}

// TestSupervisorLives: who has to be alive for a sign of life.
func TestSupervisorLives(t *testing.T) {
	now := time.Unix(1000, 0)
	c := conversation{watchdog: 10 * time.Second}
	heard := func(ago ...time.Duration) view {
		v := seen(1, "serving", "serving")
		for i, d := range ago {
			v.Groups[0].Workers[i].Heard = now.Add(-d)
		}
		return v
	}
	agent := seen(1, "serving", "serving")
	agent.Groups = append(agent.Groups, workerset.GroupStatus{Name: "agent", Count: 1})
	admin := seen(1, "serving", "serving")
	admin.Groups = append(admin.Groups, workerset.GroupStatus{Name: "admin", Count: 1, Sockets: []string{"admin"}})
	none := seen(1)
	none.Groups[0].Count = 0
	lonely := seen(1, "starting")
	lonely.Groups[0].Sockets = nil
	for i, step := range []struct {
		v    view
		want bool
	}{
		{seen(1, "serving", "starting"), true},
		{seen(2, "serving/old", "starting"), true}, // it serves, whosever it is
		{seen(1, "starting", "draining", "exited"), false},
		{seen(1, "condemned"), true},
		{seen(1), false},
		{none, true},
		{agent, true},
		{admin, false},
		{lonely, false},
		{heard(9*time.Second, time.Hour), true},
		{heard(10*time.Second, time.Hour), false},
	} {
		if got := c.lives(step.v, now); got != step.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}
