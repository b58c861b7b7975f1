package draintest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// leakRounds is how many rounds it takes to tell a leak from what a server opens once.
const leakRounds = 3

// Names of findings.
const (
	foundFailed      = "failed"
	foundClosedIdle  = "closed-idle"
	foundAction      = "action"
	foundUnchanged   = "unchanged"
	foundStayed      = "stayed"
	foundEnded       = "ended"
	foundUnanswered  = "unanswered"
	foundDescriptors = "descriptors"
	foundZombies     = "zombies"
	foundLeft        = "left"
	foundAnswers     = "answers"

	untestedNothing     = "no-requests"
	untestedSlow        = "slow-machine"
	untestedRate        = "rate"
	untestedUnseen      = "unseen"
	untestedInterrupted = "interrupted"
)

// judge says what is wrong with what a test has seen. It looks at nothing else.
func judge(r *Report, interrupted error) (found []Finding) {
	add := func(v Verdict, name string, round int, cause, format string, args ...any) {
		found = append(found, Finding{v, name, round, fmt.Sprintf(format, args...), cause})
	}
	fail := func(name string, round int, cause, format string, args ...any) {
		add(Fail, name, round, cause, format, args...)
	}
	done := r.Rounds
	if interrupted != nil && len(done) > 0 {
		done = done[:len(done)-1] // the last one may not have had its time
	}
	if r.Ended > 0 {
		fail(foundEnded, r.Ended, "it took the action for a stop, or crashed; its last output says why",
			"the program has ended: %s", r.Exit)
	}
	found = append(found, judgeLoad(r)...)
	for _, round := range done {
		if round.Err != "" {
			fail(foundAction, round.N, "", "the action failed: %s", round.Err)
		}
	}
	if bad := only(done, func(x Round) bool { return x.Changed == 0 }); len(bad) > 0 && !r.cfg.Unchanged && (r.Watched || r.Named) {
		fail(foundUnchanged, bad[0], "the signal is ignored or goes to the wrong process, the action only reloads a configuration in the same process, or the new process could not start",
			"in %s no other process came to serve within %s", rounds(bad), within(r, bad))
	}
	if bad := only(done, func(x Round) bool { return len(x.Stayed) > 0 }); len(bad) > 0 {
		fail(foundStayed, bad[0], "the old process waits for connections that never end, or was never told to stop",
			"after %s processes of before were still there when %s had passed: %s", rounds(bad), within(r, bad),
			pids(r.Rounds[bad[0]-1].Stayed))
	}
	if bad := only(done, func(x Round) bool { return !x.Answered }); len(bad) > 0 && r.Ended == 0 {
		fail(foundUnanswered, bad[0], "the new process does not serve, or not everything",
			"after %s not every kind of client was answered", rounds(bad))
	}
	if len(only(r.Rounds, func(x Round) bool { return len(x.Stayed) > 0 })) == 0 && leaks(r) {
		fail(foundDescriptors, 1, "a listener, pipe or file is passed on again and again, and nobody closes the copy",
			"more descriptors are open after every round: %d before, then %s", r.FDs, fds(r.Rounds))
	}
	if len(r.Zombies) > 0 {
		fail(foundZombies, 0, "a parent starts processes and does not wait for them (wait(2))",
			"processes have ended, and their parent has not asked how: %s", pids(r.Zombies))
	}
	if len(r.Left) > 0 {
		fail(foundLeft, 0, "the program's stop does not reach its children",
			"processes were left when the program had been told to stop: %s", pids(r.Left))
	}

	switch {
	case r.Load.Started == 0:
		add(Untested, untestedNothing, 0, "", "there were no requests")
	case interrupted != nil:
		add(Untested, untestedInterrupted, 0, "", "the test was ended after %d of %d rounds: %v", len(r.Rounds), r.Asked, interrupted)
	case !r.Watched && !r.Named && !r.cfg.Unchanged:
		add(Untested, untestedUnseen, 0, "say which process it is (PID file), or have its answers carry X-Worker",
			"it can't be seen whether the action did anything")
	}
	if r.Load.Behind > r.cfg.MaxBehind {
		add(Untested, untestedSlow, 0, "fewer clients, a lower rate, or a machine of its own",
			"this machine was too busy for the load: a client began %v late", r.Load.Behind.Round(time.Millisecond))
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Load.ByKind)) {
		if k := r.Load.ByKind[kind]; tooManyMissed(k, r.cfg.Load.Clients[kind]) {
			add(Untested, untestedRate, 0, "a client that keeps its connection waits for an answer before it asks again: a lower rate, or more think time, with more clients",
				"the load could not keep its rate: of kind %v %d of %d requests could not be sent in time", kind, k.Missed, k.Started+k.Missed)
		}
	}
	return found
}

// tooManyMissed tells whether more than a twentieth of what was to be sent was not. One of
// each client is nothing.
func tooManyMissed(k load.Counts, clients int) bool {
	return k.Missed > max(clients, (k.Started+k.Missed)/20)
}

// judgeLoad is about requests.
func judgeLoad(r *Report) (found []Finding) {
	failed, idle := r.Load.Failures.Total(), r.Load.ClosedIdle
	if most := r.cfg.MaxFailed; most >= 0 && failed > most {
		for class, n := range r.Load.Failures {
			if n > 0 {
				first := firstOf(r.Failures, load.Class(class))
				found = append(found, Finding{Fail, foundFailed, r.round(first.When),
					fmt.Sprintf("%s failed: %v%s", plural(n, "request"), load.Class(class), when(r, first)), causes[load.Class(class)]})
			}
		}
	}
	if most := r.cfg.MaxClosedIdle; most >= 0 && idle > most {
		first := firstOf(r.Failures, load.ClosedIdle)
		found = append(found, Finding{Fail, foundClosedIdle, r.round(first.When),
			fmt.Sprintf("%s closed while idle%s", plural(idle, "connection was", "connections were"), when(r, first)), causes[load.ClosedIdle]})
	}
	if r.Load.Started > 0 {
		if err := r.Load.Accounted(); err != nil {
			found = append(found, Finding{Fail, foundAnswers, 0, err.Error(), ""})
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Load.ByKind)) {
		k := r.Load.ByKind[kind]
		if k.Started > 0 && k.OK == 0 {
			found = append(found, Finding{Fail, foundAnswers, 0, fmt.Sprintf("clients of kind %v had no good answer", kind), ""})
		}
		if k.Unmatched > 0 && k.Unmatched < k.OK {
			found = append(found, Finding{Fail, foundAnswers, 0, fmt.Sprintf(
				"%d of %d answers of kind %v carry no X-Request-Id, unlike the others", k.Unmatched, k.OK, kind),
				"two servers of different kinds answer"})
		}
	}
	return found
}

// causes are what usually makes a request fail in a restart.
var causes = map[load.Class]string{
	load.Refused:    "nobody listened: the old process closed its socket before the new one had bound its own. Pass the listening socket on",
	load.Reset:      "the listening socket was closed with connections in its queue, or a connection with a request in it, or the process was killed",
	load.EOF:        "the server closed a kept connection while a request was on its way, or exited before it answered. Drain, and let idle connections live on for a while, or pass them on",
	load.Cut:        "the process exited while it answered. Wait for requests in flight before the exit",
	load.Timeout:    "the connection waits in the queue of a socket that nobody accepts from, or a process hangs. Of UDP: a process ended before it had answered what it had read, or a queue was full",
	load.Status:     "something in front of the server found nobody behind it (502, 503; UNAVAILABLE), or the new process served before it was ready",
	load.Body:       "a handler was cut short, or the answer is another one than asked for",
	load.Duplicated: "two processes read from the same connection, or a request was sent on twice",
	load.CrossTalk:  "two processes read from the same connection, or answers are mixed up by a proxy",
	load.Closing:    "a message and the server's close frame have met: its sender can't know what became of it",
	load.GoneAway:   "the server did not announce its leave: a first GOAWAY that names no stream, then a second one (RFC 9113, section 6.8)",
	load.Handshake:  "the certificate is not one that is trusted (a file of its CA helps), or the server does not speak this protocol",
	load.ClosedIdle: "the server closes connections when it drains, or asks its clients to leave. HTTP allows it, yet each has to connect anew, and a request that is just being sent is lost: clients see a reset and must know whether they may send it again",
	load.Other:      "this machine ran out of something, such as ports or descriptors",
}

func firstOf(log []load.Failure, c load.Class) load.Failure {
	for _, f := range log {
		if f.Class == c {
			return f
		}
	}
	return load.Failure{}
}

// when says where in the test the first failure of a class was.
func when(r *Report, f load.Failure) string {
	n := r.round(f.When)
	switch {
	case f.When.IsZero():
		return ""
	case n == 0:
		return "; the first one before the first round, on " + on(f)
	}
	after := f.When.Sub(r.Rounds[n-1].Began).Round(time.Millisecond)
	return fmt.Sprintf("; the first one in round %d, %v after the action, on %s", n, after, on(f))
}

// on says on what a failure was.
func on(f load.Failure) string {
	kind := fmt.Sprintf("kind %v", f.Kind)
	if before := f.Before(); before != "" {
		kind += " (" + before + ")"
	}
	return kind + ": " + f.Detail
}

// leaks tells whether more descriptors were open after each round than after the one before.
// The first round may have less than there was before: what a program is started with differs
// from what it starts its next process with.
func leaks(r *Report) bool {
	n := len(r.Rounds)
	if n < leakRounds || r.FDs == 0 || r.Rounds[n-1].FDs <= r.FDs {
		return false
	}
	for i, round := range r.Rounds[1:] {
		if before := r.Rounds[i].FDs; before == 0 || round.FDs <= before {
			return false
		}
	}
	return true
}

// within is how long rounds have had.
func within(r *Report, bad []int) string {
	if r.cfg.Settle <= hurriedSettle || len(bad) == 1 {
		return r.cfg.Settle.String()
	}
	return fmt.Sprintf("%v (%v after the first)", r.cfg.Settle, hurriedSettle)
}

// only are the numbers of the rounds that are bad.
func only(all []Round, bad func(Round) bool) (numbers []int) {
	for _, r := range all {
		if bad(r) {
			numbers = append(numbers, r.N)
		}
	}
	return numbers
}

func rounds(numbers []int) string {
	s := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(numbers)), ", "), "[]")
	if len(numbers) == 1 {
		return "round " + s
	}
	return "rounds " + s
}

func fds(all []Round) string {
	var list []string
	for _, r := range all {
		list = append(list, fmt.Sprint(r.FDs))
	}
	return strings.Join(list, ", ")
}

// pids names processes.
func pids(list []*Life) string {
	const most = 5
	var names []string
	for _, l := range list[:min(len(list), most)] {
		name := strings.Join(l.Args, " ")
		if len(name) > 60 {
			name = name[:60] + "…"
		}
		names = append(names, strings.TrimSpace(fmt.Sprintf("%d %s", l.PID, name)))
	}
	if n := len(list) - most; n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

// plural counts things.
func plural(n int, one string, many ...string) string {
	if n == 1 {
		return "1 " + one
	}
	if len(many) == 0 {
		many = []string{one + "s"}
	}
	return fmt.Sprintf("%d %s", n, many[0])
}
