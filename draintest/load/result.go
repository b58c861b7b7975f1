package load

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	maxErrors = 20   // failures shown
	maxLog    = 4096 // failures kept for Except; one that isn't kept can't be excused
)

// Counts says what became of a number of requests.
type Counts struct {
	Started   int      // requests started
	Missed    int      // not started, though their time had come before the load ended
	OK        int      // answered well
	Unmatched int      // of those, without the id of their request; see Config.Plain
	Excused   int      // failed, and forgiven by Except
	Failures  Failures // failed
	Latency   Latency  // of the good answers
}

// InFlight returns the number of requests under way. After Stop it is zero.
func (c Counts) InFlight() int { return c.Started - c.OK - c.Excused - c.Failures.Total() }

// Result is what became of the requests of a load.
type Result struct {
	Counts                 // of all kinds together
	ByKind map[Kind]Counts // of every kind that has a client

	Elapsed time.Duration  // from the start of the load to its end, or to the snapshot
	Workers map[string]int // answers, good or not, by the value of their X-Worker header
	Errors  []Failure      // the first 20 failures, those that were ClosedIdle among them

	// Late is the longest delay between when a request should have started
	// and when it did: how far the load fell behind its own rate, through
	// MaxInFlight or a busy machine.
	Late time.Duration

	// Behind is the longest delay of a client that nothing but this machine has kept from
	// its next request: how far it was too busy for the load. The server has no part in it.
	Behind time.Duration

	// ClosedIdle counts connections of KeepAlive clients that the server closed, or sent
	// something on, while no request was under way, or said in an answer that it will, of
	// WebSocket ones that it ended in order then, of TCP ones that it ended then, and of HTTP2
	// and GRPC ones on which it said that it leaves. The client connects anew.
	ClosedIdle int

	// LeftOpen counts answers after which the server did not close the connection
	// within 5 s, though asked to. They are no failures.
	LeftOpen int

	log []Failure // the first 4096 failures that are not excused
}

// Snapshot returns the result so far.
func (l *Load) Snapshot() Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Result{
		ByKind:     map[Kind]Counts{},
		Workers:    maps.Clone(l.tally.workers),
		Late:       l.tally.late,
		Behind:     l.tally.behind,
		LeftOpen:   l.tally.left,
		ClosedIdle: l.tally.closedIdle,
		log:        slices.Clip(l.tally.log), // only ever appended to
	}
	end := l.tally.ended
	if end.IsZero() {
		end = time.Now()
	}
	r.Elapsed = end.Sub(l.began)
	for kind, t := range l.tally.kinds {
		r.ByKind[kind] = Counts{Started: t.started, Missed: t.missed, OK: t.ok, Unmatched: t.unmatched, Failures: t.failures, Latency: t.latency.latency()}
		r.Missed += t.missed
		r.OK += t.ok
		r.Unmatched += t.unmatched
		for c, n := range t.failures {
			r.Failures[c] += n
		}
	}
	r.Started = int(l.tally.started) // a count of its own, which Accounted compares
	r.Latency = l.tally.latency.latency()
	r.Errors = slices.Clone(r.log[:min(len(r.log), maxErrors)])
	return r
}

// Log returns the first 4096 failures that are not excused, in the order in which they
// were seen, those that were ClosedIdle among them.
func (r Result) Log() []Failure { return slices.Clone(r.log) }

// Except returns a copy of r in which the failures of requests whose connection's
// client-side address is in peers are Excused, and those that were ClosedIdle do not
// count. Over a unix socket clients have no
// address, and nothing is excused.
//
// Addresses are used again. Where it is known when the peers were listed,
// ExceptAt is stricter.
func (r Result) Except(peers map[string]bool) Result {
	return r.excuse(func(f Failure) bool { return peers[f.Local] })
}

// ExceptAt is Except for what there was at one moment: requests that began before it,
// or on connections made before it, and failed after it. For a worker that is frozen,
// has its peers listed and is then killed, the moment is between [Freeze] and [Peers].
func (r Result) ExceptAt(at time.Time, peers map[string]bool) Result {
	return r.excuse(func(f Failure) bool {
		return peers[f.Local] && f.When.After(at) && (f.Began.Before(at) || f.Connected.Before(at))
	})
}

// ExceptIdle returns a copy of r in which no connection counts that was ClosedIdle: for
// servers that may close them, as HTTP/1.1 allows.
func (r Result) ExceptIdle() Result {
	r.log = slices.DeleteFunc(slices.Clone(r.log), func(f Failure) bool { return f.Class == ClosedIdle })
	r.Errors = slices.Clone(r.log[:min(len(r.log), maxErrors)])
	r.ClosedIdle = 0
	return r
}

func (r Result) excuse(excused func(Failure) bool) Result {
	log := r.log
	r.ByKind, r.Workers, r.log = maps.Clone(r.ByKind), maps.Clone(r.Workers), nil
	for _, f := range log {
		if f.Local == "" || !excused(f) {
			r.log = append(r.log, f)
			continue
		}
		if f.Class == ClosedIdle {
			r.ClosedIdle--
			continue
		}
		r.Failures[f.Class]--
		r.Excused++
		k := r.ByKind[f.Kind]
		k.Failures[f.Class]--
		k.Excused++
		r.ByKind[f.Kind] = k
	}
	r.Errors = slices.Clone(r.log[:min(len(r.log), maxErrors)])
	return r
}

// Accounted returns an error if there were no requests, or if good, failed and
// excused ones are not as many as were started, in all and of each kind. It is
// for the result of Stop: in a snapshot, requests under way are not accounted for.
func (r Result) Accounted() error {
	if r.Started == 0 {
		return errors.New("load: no requests")
	}
	var sum Counts
	for _, kind := range slices.Sorted(maps.Keys(r.ByKind)) {
		k := r.ByKind[kind]
		if n := k.InFlight(); n != 0 {
			return fmt.Errorf("load: %d of %d requests of kind %v are not accounted for", n, k.Started, kind)
		}
		sum.Started += k.Started
		sum.OK += k.OK
		sum.Excused += k.Excused
	}
	if n := r.InFlight(); n != 0 {
		return fmt.Errorf("load: %d of %d requests are not accounted for", n, r.Started)
	}
	if sum.Started != r.Started || sum.OK != r.OK || sum.Excused != r.Excused {
		return fmt.Errorf("load: the kinds' %d started, %d ok, %d excused don't add up to %d, %d, %d",
			sum.Started, sum.OK, sum.Excused, r.Started, r.OK, r.Excused)
	}
	return nil
}

// Check returns nil only if every kind of client had good answers, of which all or none
// are Unmatched, no request failed (excused ones aside), every one is accounted for and
// no connection was ClosedIdle. Its error is a table to read.
func (r Result) Check() error {
	var wrong []string
	if err := r.Accounted(); err != nil {
		wrong = append(wrong, strings.TrimPrefix(err.Error(), "load: "))
	}
	if n := r.Failures.Total(); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d requests failed: %v", n, r.Started, r.Failures))
	}
	if r.ClosedIdle > 0 {
		wrong = append(wrong, fmt.Sprintf("%d connections were closed while idle", r.ClosedIdle))
	}
	for _, kind := range slices.Sorted(maps.Keys(r.ByKind)) {
		k := r.ByKind[kind]
		if r.Started > 0 && k.OK == 0 {
			wrong = append(wrong, fmt.Sprintf("kind %v had no good answer", kind))
		}
		if k.Unmatched > 0 && k.Unmatched < k.OK {
			wrong = append(wrong, fmt.Sprintf("%d of %d answers of kind %v carry no X-Request-Id, unlike the others",
				k.Unmatched, k.OK, kind))
		}
	}
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("load: %s\n%v", strings.Join(wrong, "; "), r)
}

// String returns the result as a table, with the first failures below it.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %v, started at most %v late; %d workers seen\n", r.Started,
		r.Elapsed.Round(time.Millisecond), r.Late.Round(time.Millisecond), len(r.Workers))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "kind\tstarted\tok\tfailed\texcused\tunder way\tp50\tp90\tp99\tmax\t")
	row := func(name string, k Counts) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t", name, k.Started, k.OK, k.Failures.Total(), k.Excused, k.InFlight())
		for _, d := range []time.Duration{k.Latency.P50, k.Latency.P90, k.Latency.P99, k.Latency.Max} {
			fmt.Fprintf(w, "%v\t", d.Round(100*time.Microsecond))
		}
		fmt.Fprintln(w)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.ByKind)) {
		row(kind.String(), r.ByKind[kind])
	}
	row("all", r.Counts)
	w.Flush()
	if r.Missed > 0 {
		fmt.Fprintf(&b, "requests that could not be started when their time had come, up to the end: %d\n", r.Missed)
	}
	if r.Unmatched > 0 {
		fmt.Fprintf(&b, "answers that don't say whose they are (no X-Request-Id): %d\n", r.Unmatched)
	}
	if r.LeftOpen > 0 {
		fmt.Fprintf(&b, "connections the server left open after its answer: %d\n", r.LeftOpen)
	}
	if r.ClosedIdle > 0 {
		fmt.Fprintf(&b, "connections the server closed while idle: %d\n", r.ClosedIdle)
	}
	if r.Failures.Total() > 0 {
		fmt.Fprintf(&b, "failed: %v\n", r.Failures)
	}
	if len(r.Errors) > 0 {
		fmt.Fprintf(&b, "the first %d:\n", len(r.Errors))
		for _, f := range r.Errors {
			fmt.Fprintf(&b, "  %v\n", f)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
