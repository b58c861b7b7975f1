package draintest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/golden"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }

// good is a report in which nothing is wrong.
func good() *Report {
	cfg := Config{}.withDefaults()
	r := &Report{Began: began, Took: 3 * time.Second, Name: "./shop", Action: "signal HUP", Asked: 3, cfg: cfg,
		Watched: true, Named: true, Processes: 3, FDs: 20, Memory: 5 << 20}
	for n := range 3 {
		r.Rounds = append(r.Rounds, Round{N: n + 1, Began: at(1000 * n), Action: time.Millisecond, Changed: 20 * time.Millisecond,
			By: "answer", Settled: 90 * time.Millisecond, Answered: true, FDs: 20, Processes: 3})
	}
	c := load.Counts{Started: 10, OK: 10}
	r.Load = load.Result{Counts: c, ByKind: map[load.Kind]load.Counts{load.New: c}, Workers: map[string]int{"1": 10}}
	r.Lives = []*Life{{PID: 7, Args: []string{"./shop", "--all"}, First: at(-5)}, {PID: 8, Args: []string{"worker"}, First: at(-4), Ended: at(60)}}
	r.Timeline = []Point{{At: 0, Kind: load.New, OK: 10, P50: time.Millisecond, P99: 2 * time.Millisecond, Max: 3 * time.Millisecond}}
	r.Latency = []Bar{{time.Millisecond, 4}, {1250 * time.Microsecond, 6}}
	return r
}

// failing adds requests of kind New that failed.
func failing(r *Report, class load.Class, n int) {
	k := r.Load.ByKind[load.New]
	for i := range n {
		r.Load.Started++
		k.Started++
		r.Load.Failures[class]++
		k.Failures[class]++
		r.Failures = append(r.Failures, load.Failure{When: at(1014 + i), Began: at(1000), Kind: load.New, Class: class, Detail: "connecting: refused"})
	}
	r.Load.ByKind[load.New] = k
}

// TestJudge makes one thing wrong at a time, and sees that this and nothing else is found.
func TestJudge(t *testing.T) {
	t.Parallel()
	life := &Life{PID: 7, Args: []string{"./shop", strings.Repeat("x", 100)}}
	for _, tc := range []struct {
		what    string
		wrong   func(r *Report)
		found   string // "verdict name round: part of the text"; "" for none
		stopped error
	}{
		{what: "nothing", wrong: func(*Report) {}},
		{what: "a failure", wrong: func(r *Report) { failing(r, load.Refused, 2) },
			found: "fail failed 2: 2 requests failed: refused; the first one in round 2, 14ms after the action, on kind new: connecting"},
		{what: "failures that may", wrong: func(r *Report) { failing(r, load.Refused, 2); r.cfg.MaxFailed = 2 }},
		{what: "one more than may", wrong: func(r *Report) { failing(r, load.Cut, 3); r.cfg.MaxFailed = 2 }, found: "fail failed 2: 3 requests"},
		{what: "any number", wrong: func(r *Report) { failing(r, load.Cut, 3); r.cfg.MaxFailed = -1 }},
		{what: "closed idle", wrong: func(r *Report) {
			r.Load.ClosedIdle = 1
			r.Failures = []load.Failure{{When: at(-3), Kind: load.KeepAlive, Nth: 7, Think: time.Second, Class: load.ClosedIdle, Detail: "idle: EOF"}}
		}, found: "fail closed-idle 0: 1 connection was closed while idle; the first one before the first round, on kind keepalive (after 7 requests, idle for 1s): idle: EOF"},
		{what: "closed idle that may", wrong: func(r *Report) { r.Load.ClosedIdle = 5; r.cfg.MaxClosedIdle = -1 }},
		{what: "not accounted for", wrong: func(r *Report) { r.Load.Started++ }, found: "fail answers 0: load: 1 of 11 requests are not accounted for"},
		{what: "a kind without answers", wrong: func(r *Report) {
			failing(r, load.Timeout, 1)
			r.cfg.MaxFailed = -1
			k := r.Load.ByKind[load.New]
			r.Load.ByKind[load.Slow] = load.Counts{Started: 1, Failures: k.Failures}
			k.Started, k.Failures = 10, load.Failures{}
			r.Load.ByKind[load.New] = k
		}, found: "fail answers 0: clients of kind slow had no good answer"},
		{what: "some answers without an id", wrong: func(r *Report) {
			k := r.Load.ByKind[load.New]
			k.Unmatched = 3
			r.Load.ByKind[load.New] = k
		}, found: "fail answers 0: 3 of 10 answers of kind new carry no X-Request-Id"},
		{what: "the action", wrong: func(r *Report) { r.Rounds[1].Err = "exit status 1" }, found: "fail action 2: the action failed: exit status 1"},
		{what: "no change", wrong: func(r *Report) { r.Rounds[0].Changed, r.Rounds[2].Changed = 0, 0 },
			found: "fail unchanged 1: in rounds 1, 3 no other process came to serve within 30s"},
		{what: "no change, which is right", wrong: func(r *Report) { r.Rounds[0].Changed = 0; r.cfg.Unchanged = true }},
		{what: "an old one", wrong: func(r *Report) { r.Rounds[2].Stayed = []*Life{life} },
			found: "fail stayed 3: after round 3 processes of before were still there when 30s had passed: 7 ./shop xxx"},
		{what: "no answers", wrong: func(r *Report) { r.Rounds[1].Answered = false }, found: "fail unanswered 2: after round 2 not every kind"},
		{what: "an end", wrong: func(r *Report) { r.Ended, r.Exit, r.Rounds[2].Answered = 3, "exit status 1", false },
			found: "fail ended 3: the program has ended: exit status 1"},
		{what: "a leak", wrong: func(r *Report) { r.Rounds[0].FDs, r.Rounds[1].FDs, r.Rounds[2].FDs = 20, 21, 22 },
			found: "fail descriptors 1: more descriptors are open after every round: 20 before, then 20, 21, 22"},
		{what: "no leak: not in every round", wrong: func(r *Report) { r.Rounds[0].FDs, r.Rounds[1].FDs, r.Rounds[2].FDs = 30, 30, 31 }},
		{what: "no leak: less than before", wrong: func(r *Report) { r.Rounds[0].FDs, r.Rounds[1].FDs, r.Rounds[2].FDs = 10, 12, 14 }},
		{what: "no leak: not known", wrong: func(r *Report) { r.Rounds[0].FDs, r.Rounds[1].FDs, r.Rounds[2].FDs = 0, 21, 22 }},
		{what: "no leak: too few rounds", wrong: func(r *Report) { r.Rounds = r.Rounds[:2]; r.Rounds[0].FDs, r.Rounds[1].FDs = 21, 22 }},
		{what: "a zombie", wrong: func(r *Report) { r.Zombies = []*Life{life} }, found: "fail zombies 0: processes have ended"},
		{what: "left", wrong: func(r *Report) { r.Left = []*Life{life, life, life, life, life, life, life} }, found: "fail left 0: processes were left"},
		{what: "no requests", wrong: func(r *Report) { r.Load = load.Result{} }, found: "untested no-requests 0: there were no requests"},
		{what: "interrupted", wrong: func(r *Report) { r.Rounds = r.Rounds[:1] }, stopped: errors.New("Ctrl-C"),
			found: "untested interrupted 0: the test was ended after 1 of 3 rounds: Ctrl-C"},
		{what: "interrupted in a round", wrong: func(r *Report) {
			r.Rounds = r.Rounds[:2]
			r.Rounds[1] = Round{N: 2, Began: at(1000), Err: "killed", Stayed: []*Life{life}}
		}, stopped: errors.New("Ctrl-C"), found: "untested interrupted 0: the test was ended after 2 of 3 rounds: Ctrl-C"},
		{what: "nothing to be seen", wrong: func(r *Report) {
			r.Watched, r.Named = false, false
			for i := range r.Rounds {
				r.Rounds[i].Changed = 0
			}
		}, found: "untested unseen 0: it can't be seen whether the action did anything"},
		{what: "a busy machine", wrong: func(r *Report) { r.Load.Behind = time.Second }, found: "untested slow-machine 0: this machine was too busy for the load: a client began 1s late"},
		{what: "a rate that was not kept", wrong: func(r *Report) {
			r.Load.ByKind[load.New] = load.Counts{Started: 10, OK: 10, Missed: 2}
			r.cfg.Load.Clients = map[load.Kind]int{load.New: 1}
		}, found: "untested rate 0: the load could not keep its rate: of kind new 2 of 12 requests could not be sent in time"},
		{what: "one of each client", wrong: func(r *Report) {
			r.Load.ByKind[load.New] = load.Counts{Started: 10, OK: 10, Missed: 1}
			r.cfg.Load.Clients = map[load.Kind]int{load.New: 1}
		}},
	} {
		r := good()
		tc.wrong(r)
		r.Findings = judge(r, tc.stopped)
		if tc.found == "" {
			if r.Verdict() != Pass || len(r.Findings) > 0 {
				t.Errorf("%s: %v, %+v", tc.what, r.Verdict(), r.Findings)
			}
			continue
		}
		want, text, _ := strings.Cut(tc.found, ": ")
		ok := len(r.Findings) == 1
		if ok {
			f := r.Findings[0]
			ok = strings.HasPrefix(f.Text, text) && want == f.Verdict.String()+" "+f.Name+" "+string(rune('0'+f.Round)) && r.Verdict() == f.Verdict
		}
		if !ok {
			t.Errorf("%s: found %+v, want %s", tc.what, r.Findings, tc.found)
		}
		if s := r.String(); !strings.HasPrefix(s, strings.ToUpper(r.Verdict().String())+": ./shop, ") || !strings.Contains(s, text) {
			t.Errorf("%s: %s", tc.what, s)
		}
	}
}

// Every class of failure has a usual cause.
func TestCauses(t *testing.T) {
	t.Parallel()
	for c := load.Refused; !strings.HasPrefix(c.String(), "class("); c++ {
		if causes[c] == "" {
			t.Errorf("%v has none", c)
		}
	}
}

// TestVerdict: a failure counts more than that something is not known.
func TestVerdict(t *testing.T) {
	t.Parallel()
	u, f := Finding{Verdict: Untested}, Finding{Verdict: Fail}
	for want, list := range map[Verdict][][]Finding{
		Pass: {nil}, Fail: {{f}, {u, f}, {f, u}}, Untested: {{u}},
	} {
		for _, found := range list {
			if got := (&Report{Findings: found}).Verdict(); got != want {
				t.Errorf("%v: %v, want %v", found, got, want)
			}
		}
	}
}

// What programs read stays as it is.
func TestFormat(t *testing.T) {
	t.Parallel()
	r := good()
	failing(r, load.Refused, 1)
	r.Findings = judge(r, nil)
	b, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "report.json", [][]byte{b})
}

// Jenkins and GitLab count test cases, failures and errors.
func TestJUnit(t *testing.T) {
	t.Parallel()
	r := good()
	failing(r, load.Refused, 1)
	r.Load.Behind = time.Hour
	r.Name = "a < b ]]> &"
	r.Findings = judge(r, nil)
	var b bytes.Buffer
	if err := r.WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Suites []struct {
			Name                    string `xml:"name,attr"`
			Tests, Failures, Errors int    `xml:",attr"`
			Cases                   []struct {
				Name    string  `xml:"name,attr"`
				Failure *string `xml:"failure"`
				Error   *string `xml:"error"`
			} `xml:"testcase"`
			Out string `xml:"system-out"`
		} `xml:"testsuite"`
	}
	text := b.Bytes()
	for _, name := range []string{"tests", "failures", "errors"} { // attributes are matched by case
		text = bytes.ReplaceAll(text, []byte(" "+name+"="), []byte(" "+strings.ToUpper(name[:1])+name[1:]+"="))
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		t.Fatalf("%v\n%s", err, b.Bytes())
	}
	s := doc.Suites[0]
	if s.Tests != 4 || s.Failures != 1 || s.Errors != 1 || len(s.Cases) != 4 || s.Out != r.String() || s.Name != "draintest a < b ]]> &" {
		t.Errorf("%s", b.Bytes())
	}
	if s.Cases[0].Error == nil || s.Cases[2].Failure == nil || !strings.Contains(*s.Cases[2].Failure, "usual cause: nobody listened") {
		t.Errorf("%s", b.Bytes())
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	right := Config{Load: load.Config{Addr: "127.0.0.1:1"}, Action: Signal(1), Command: []string{"x"}}
	if err := right.Validate(); err != nil {
		t.Fatal(err)
	}
	for part, wrong := range map[string]func(*Config){
		"Addr":             func(c *Config) { c.Load.Addr = "nowhere" },
		"Load.Observe":     func(c *Config) { c.Load.Observe = func(load.Request) {} },
		"Load.MaxRequests": func(c *Config) { c.Load.MaxRequests = 1 },
		"Command":          func(c *Config) { c.Command = []string{""} },
		"Action: none":     func(c *Config) { c.Action = Action{} },
		"of which process": func(c *Config) { c.Command = nil },
		"unix socket":      func(c *Config) { c.Load.Addr, c.Action = "unix:/s", KillWorker() },
		"Rounds":           func(c *Config) { c.Rounds = -1 },
		"Every":            func(c *Config) { c.Every = -1 },
		"Settle":           func(c *Config) { c.Settle = -1 },
		"MaxBehind":        func(c *Config) { c.MaxBehind = -1 },
	} {
		c := right
		wrong(&c)
		if err := c.Validate(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", part, err)
		}
		if _, err := Test(t.Context(), c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: Test: %v", part, err)
		}
	}
}

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for name, sig := range signalNames {
		for _, s := range []string{name, "SIG" + name, strings.ToLower(name)} {
			if got, err := ParseSignal(s); err != nil || got != sig || Signal(got).String() != "signal "+name {
				t.Errorf("%s: %v, %v", s, got, err)
			}
		}
	}
	if _, err := ParseSignal("NONSENSE"); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}

// Of many latencies the quantiles are those of a sample, and the rest is exact.
func TestRecorder(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	r.began = began
	for i := range 1000 {
		r.observe(load.Request{Kind: load.New, Intended: began, Ended: at(i % 100), Worker: "a"})
	}
	r.observe(load.Request{Kind: load.New, Intended: at(250), Ended: at(251), Worker: "b", Failure: &load.Failure{Class: load.Cut}})
	r.observe(load.Request{Kind: load.KeepAlive, Intended: at(250), Ended: at(251), Failure: &load.Failure{Class: load.ClosedIdle}})
	line := r.timeline()
	if len(line) != 3 || line[0].OK != 1000 || line[0].Max != 99*time.Millisecond || line[1].At != 200*time.Millisecond || line[1].Failed != 1 || line[2].ClosedIdle != 1 {
		t.Fatalf("%+v", line)
	}
	if p := line[0]; p.P50 < 25*time.Millisecond || p.P50 > 75*time.Millisecond || p.P99 < 90*time.Millisecond {
		t.Errorf("p50 %v, p99 %v of 0 to 99 ms", p.P50, p.P99)
	}
	sum := 0
	for i, b := range r.histogram() {
		sum += b.Count
		if i > 0 && b.UpTo <= r.histogram()[i-1].UpTo {
			t.Errorf("bar %d ends at %v", i, b.UpTo)
		}
	}
	if sum != 1000 || barOf(0) != 0 || barOf(firstBar) != 0 || barOf(firstBar+1) != 1 || barOf(firstBar*5/4) != 1 {
		t.Errorf("%d in the histogram", sum)
	}
	if first, ok := r.firstSince(at(100)); !ok || !first.Equal(at(251)) {
		t.Errorf("%v, %t", first, ok)
	}
	if _, ok := r.firstSince(at(300)); ok {
		t.Error("nobody came after that")
	}
	if good, failed, idle, last := r.counts(); good != 1000 || failed != 1 || idle != 1 || last != "b" {
		t.Error(good, failed, idle, last)
	}
	if !slices.IsSortedFunc(line, func(a, b Point) int { return int(a.At - b.At) }) {
		t.Error("not by time")
	}
}

// Requests that should have been sent while a restart went on are told from others.
func TestAround(t *testing.T) {
	t.Parallel()
	r := good() // rounds at 0, 1 and 2 s, 200 ms each
	r.Timeline = nil
	point := func(ms int, kind load.Kind, latency time.Duration) {
		r.Timeline = append(r.Timeline, Point{At: time.Duration(ms) * time.Millisecond, Kind: kind, latencies: []time.Duration{latency}})
	}
	point(100, load.New, 5*time.Millisecond)
	point(500, load.New, time.Millisecond)
	point(900, load.KeepAlive, 2*time.Millisecond)
	point(1000, load.KeepAlive, 7*time.Millisecond)
	point(1200, load.New, 3*time.Millisecond)
	point(1100, load.Slow, time.Second)
	if in, out := r.around(); in != 7*time.Millisecond || out != 3*time.Millisecond {
		t.Errorf("in restarts %v, otherwise %v; want 7ms, 3ms", in, out)
	}
	r.Timeline = nil
	if in, out := r.around(); in != 0 || out != 0 {
		t.Errorf("nothing: %v, %v", in, out)
	}
}
