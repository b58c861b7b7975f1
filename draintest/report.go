package draintest

import (
	"slices"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// Verdict is what a test has come to.
type Verdict int

// The verdicts. See the package's documentation.
const (
	Pass Verdict = iota
	Fail
	Untested
)

// String returns the verdict in lower case.
func (v Verdict) String() string { return [...]string{"pass", "fail", "untested"}[v] }

// A Finding is something that a test has found.
type Finding struct {
	Verdict Verdict // Fail or Untested
	Name    string  // one word for programs: see judge.go
	Round   int     // in which it was seen first; 0: before, after or in none
	Text    string  // what, in words
	Cause   string  // what usually causes it
}

// Round is one time that the action was done.
type Round struct {
	N         int
	Began     time.Time     // the action
	Action    time.Duration // how long it took
	Err       string        // why it failed, or ""
	Changed   time.Duration // until another process was seen; 0: never
	By        string        // how: "process" or "answer"
	Settled   time.Duration // until there were no more processes than before; 0: never
	Answered  bool          // every kind of client was, after the action
	Stayed    []*Life       // processes of before that are too many at its end
	Failed    int           // requests, among them those that may
	Idle      int           // idle connections that were closed
	FDs       int           // open at its end in all processes, but for those of clients; 0: not known
	Processes int           // alive at its end
}

// Report is what a test has seen.
type Report struct {
	Began    time.Time // the load
	Took     time.Duration
	Name     string // what was tested
	Action   string
	Rounds   []Round
	Asked    int // rounds that were to be
	Findings []Finding
	Load     load.Result
	Failures []load.Failure // the first 4096, by time, those that were ClosedIdle too
	Timeline []Point
	Latency  []Bar   // histogram of the good answers
	Lives    []*Life // all processes of the server's, by age

	// The 99th percentiles of the latency of requests that take no time by design, of those
	// that should have been sent while a restart went on, and of all others. 0: there were none.
	P99In, P99Out time.Duration

	Processes int   // alive before the first round; 0: they are not watched
	FDs       int   // open then, but for those of clients
	Memory    int64 // the most that all of them had, in bytes
	Ended     int   // the round in which the program has ended by itself, or 0
	Exit      string
	Zombies   []*Life // at the end
	Left      []*Life // by the program, when it had been stopped
	Watched   bool    // the server's processes were
	Named     bool    // answers say whose they are (X-Worker)

	cfg Config
}

// Verdict is that of the findings.
func (r *Report) Verdict() Verdict {
	v := Pass
	for _, f := range r.Findings {
		if f.Verdict == Fail {
			return Fail
		}
		v = f.Verdict
	}
	return v
}

// lasted is how long the action took, and what came of it.
func (x Round) lasted() time.Duration { return max(x.Action, x.Changed, x.Settled) }

// leastRestart is how long a restart goes on at least, for those whose requests it delays.
const leastRestart = 200 * time.Millisecond

// around returns P99In and P99Out.
func (r *Report) around() (in, out time.Duration) {
	var all [2][]time.Duration
	for _, p := range r.Timeline {
		if p.Kind == load.Slow || p.Kind == load.Upload || p.Kind == load.Stream {
			continue
		}
		i := 1
		for _, x := range r.Rounds {
			from := x.Began.Sub(r.Began)
			if p.At+bucket > from && p.At < from+max(x.lasted(), leastRestart) {
				i = 0
			}
		}
		all[i] = append(all[i], p.latencies...)
	}
	return p99(all[0]), p99(all[1])
}

func p99(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[(len(d)*99+99)/100-1]
}

// round is the one of a time: 0 before the first.
func (r *Report) round(t time.Time) int {
	n := 0
	for _, round := range r.Rounds {
		if !t.Before(round.Began) {
			n = round.N
		}
	}
	return n
}
