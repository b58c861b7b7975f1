package handover

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/metrics"
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

// TestProbationEnds: what fails after the probation is neither counted nor kept.
func TestProbationEnds(t *testing.T) {
	crash := workerset.Worker{Group: "web", Slot: 1, ID: 1, State: "exited", Cause: "crash"}
	p := probation{failed: make(chan string, 1)}
	p.saw(crash)
	if why := <-p.failed; !strings.Contains(why, "crash") {
		t.Errorf("on probation: %q", why)
	}
	p.end()
	p.saw(crash)
	if len(p.failed) != 0 || len(p.tally.failed) != 0 {
		t.Errorf("afterwards: %d, %v", len(p.failed), p.tally.failed)
	}
}

// TestWayBackFails: whoever watches a generation that has failed is told that there is no way
// back, whoever else has asked for it, and that is the last outcome, whatever came between.
func TestWayBackFails(t *testing.T) {
	auto, hand := ask{back: &back{Failed: 2, Reason: "sick"}}, ask{back: &back{Reason: "asked"}}
	for name, c := range map[string]struct {
		asks []ask
		want control.Outcome
		told control.Result
	}{
		"by itself":          {[]ask{auto}, control.Outcome{Generation: 2, Result: control.Stopped, Reason: "sick; and going back failed: there is no generation to go back to"}, control.Stopped},
		"and somebody asked": {[]ask{hand, auto, hand}, control.Outcome{Generation: 2, Result: control.Stopped, Reason: "sick; and going back failed: there is no generation to go back to"}, control.Stopped},
		"somebody asked":     {[]ask{hand}, control.Outcome{Generation: 1, Result: control.Failed, Reason: "there is no generation to go back to"}, ""},
	} {
		p := &parent{up: &upgrader.Upgrader{}, metrics: metrics.New(), memory: anothers(), supervisor: &supervisor{news: make(chan struct{}, 1)}, log: slog.New(slog.DiscardHandler)}
		u := newUpgrades(p)
		u.last = &control.Outcome{Generation: 3, Result: control.Failed, Reason: "another upgrade"}
		f, other := watching(t)
		w, err := control.ResumeWatcher(f)
		if err != nil {
			t.Fatal(err)
		}
		u.watches, u.waiting = []watch{{watcher: w}}, c.asks
		if !u.next() || u.upgrade(t.Context()) == nil {
			t.Fatalf("%s: there was a way back", name)
		}
		u.last.Time, u.last.Began = time.Time{}, time.Time{}
		if *u.last != c.want {
			t.Errorf("%s: %+v", name, *u.last)
		}
		w.End(control.Event{}) // does nothing if it was told
		var ev control.Event
		for dec := json.NewDecoder(other); ev.Result == "" && dec.Decode(&ev) == nil; {
		}
		if ev.Result != c.told {
			t.Errorf("%s: it was told %+v", name, ev)
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
			p := &parent{up: &upgrader.Upgrader{}, metrics: metrics.New(), back: c.back, memory: anothers(), supervisor: &supervisor{news: make(chan struct{}, 1)}}
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

// TestEmptySource: who goes back to a generation whose configuration file was empty does not
// read what is in it by now.
func TestEmptySource(t *testing.T) {
	defer func() { goesBack = nil }()
	for name, want := range map[string][]byte{"none": nil, "empty": {}, "some": []byte("workers = 2\n")} {
		target, err := (&previous{recipe: recipe{Generation: 1, Source: want}}).target(back{})
		if err != nil {
			t.Fatal(err)
		}
		goesBack = &back{}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(target.Env[0], envBack+"=")), goesBack); err != nil {
			t.Fatal(err)
		}
		if got := KeptSource(); (got == nil) != (want == nil) || string(got) != string(want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestBackFits: what a parent is started with to go back is short enough for execve(2),
// whatever the worker that has failed had to say about it.
func TestBackFits(t *testing.T) {
	p := previous{recipe: recipe{Generation: 1, Source: []byte(strings.Repeat("s", MaxSource)), Programs: map[string]location{}}}
	path := "/" + strings.Repeat("p", 300)
	for _, group := range []string{"web", "admin", "mail", "agent"} {
		p.Programs[group] = location{Path: path, Name: path, Dir: path}
	}
	for _, why := range []string{"no luck", strings.Repeat("<", 64<<10), strings.Repeat("\x00", 64<<10), strings.Repeat("é", 64<<10)} {
		target, err := p.target(back{Failed: 2, Reason: why})
		if err != nil || len(target.Env) != 1 {
			t.Fatalf("%v, %v", target.Env, err)
		}
		if n := len(target.Env[0]); n >= 128<<10 {
			t.Errorf("%d bytes are more than one variable may have", n)
		}
		var got back
		if err := json.Unmarshal([]byte(strings.TrimPrefix(target.Env[0], envBack+"=")), &got); err != nil {
			t.Fatal(err)
		}
		if got.Failed != 2 || !strings.HasPrefix(why, strings.TrimSuffix(got.Reason, "…")) || len(got.Reason) < min(len(why), maxWhy) {
			t.Errorf("%d, %.20q… of %d bytes", got.Failed, got.Reason, len(got.Reason))
		}
	}
}

// TestHealthPaths: each group is asked for its own path, or for none.
func TestHealthPaths(t *testing.T) {
	c := Config{Health: "http:/h", Groups: []Group{
		{Name: "as all"}, {Name: "own", Health: "http:/own?x=1"}, {Name: "not", Health: "none"}, {Name: "agent", Agent: true},
	}}
	if got, want := c.healthPaths(), map[string]string{"as all": "/h", "own": "/own?x=1"}; !maps.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if got := (Config{}).healthPaths(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// TestValidateProbation: what is asked for that can't be done.
func TestValidateProbation(t *testing.T) {
	tcp, unix, udp := "http=tcp://:80", "http=unix:///run/s", "dns=udp://:53"
	program := []string{"./server"}
	nobody := "there is no socket to be asked on"
	for name, c := range map[string]struct {
		cfg  Config
		want string // a part of the error; "": it is good
	}{
		"workers":             {Config{Health: "http:/h", Listen: []string{udp, unix}}, ""},
		"programs":            {Config{Health: "http:/h", Listen: []string{udp, tcp}, Command: program}, ""},
		"no path":             {Config{Health: "/h", Listen: []string{tcp}}, "write it as http:/PATH"},
		"packets":             {Config{Health: "http:/h", Listen: []string{udp}}, nobody},
		"programs, unix":      {Config{Health: "http:/h", Listen: []string{unix}, Command: program}, nobody},
		"one group of two":    {Config{Health: "http:/h", Listen: []string{tcp, udp}, Groups: []Group{{Name: "a", Sockets: []string{"dns"}}, {Name: "b", Sockets: []string{"http"}}}}, ""},
		"each its own":        {Config{Health: "http:/h", Listen: []string{"w-1=tcp://:1"}, Groups: []Group{{Name: "w", Workers: 1, Sockets: []string{"w-{slot}"}}}}, ""},
		"not one of them":     {Config{Health: "http:/h", Listen: []string{tcp}, Groups: []Group{{Name: "a", Health: "none"}}}, nobody},
		"one by itself":       {Config{Listen: []string{tcp, udp}, Groups: []Group{{Name: "a", Health: "http:/a"}, {Name: "b"}}}, ""},
		"one that can't":      {Config{Listen: []string{tcp, udp}, Groups: []Group{{Name: "a", Sockets: []string{"dns"}, Health: "http:/a"}}}, nobody},
		"one without a path":  {Config{Listen: []string{tcp}, Groups: []Group{{Name: "a", Health: "yes"}}}, "write it as http:/PATH"},
		"an agent":            {Config{Health: "http:/h", Groups: []Group{{Name: "a", Agent: true}}}, nobody},
		"source":              {Config{Source: []byte("name = 1\n")}, ""},
		"long source":         {Config{Source: make([]byte, MaxSource+1)}, "at most 65536"},
		"source that is none": {Config{Source: []byte("a\x00b")}, "zero byte"},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// anothers is a memory that another process writes.
func anothers() *memory {
	m := newMemory(nil)
	m.held = true
	return m
}
