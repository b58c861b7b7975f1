package draintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// lookTime is the time between two looks at the processes, and measureTime that between
// two at their memory.
const (
	lookTime    = 25 * time.Millisecond
	measureTime = 500 * time.Millisecond
)

// Run is Test in a Go test: it fails, with the report, unless the verdict is Pass.
func Run(t testing.TB, cfg Config) *Report {
	t.Helper()
	r, err := Test(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict() != Pass {
		t.Error(r)
	}
	return r
}

// Test restarts a server under load. Its errors are those of a test that could not begin:
// ErrConfig, ErrStart, or no good answer within Load.WaitReady. When ctx ends, the test
// does, and is Untested unless it has failed.
func Test(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	rec := newRecorder()
	cfg.Load.Observe = rec.observe
	s, err := newSubject(cfg)
	if err != nil {
		return nil, err
	}
	l, err := begin(ctx, s, rec)
	if err != nil {
		s.stop()
		return nil, err
	}
	t := &test{cfg: cfg, subject: s, recorder: rec, load: l, report: &Report{
		Began: rec.began, Name: name(cfg), Action: cfg.Action.String(), Asked: cfg.Rounds, cfg: cfg,
	}}
	if err := s.serves(); err != nil {
		l.Stop()
		s.stop()
		return nil, err
	}
	t.rounds(ctx)
	t.end(ctx)
	return t.report, nil
}

// begin starts the load when the server answers.
func begin(ctx context.Context, s *subject, rec *recorder) (*load.Load, error) {
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-s.exited: // nil, and never, if it was not started here
			cancel(fmt.Errorf("%w: the program has ended: %s", ErrStart, s.exit()))
		case <-began:
		}
	}()
	// The load is to last longer than its beginning.
	err := load.Ready(starting, s.cfg.Load)
	close(began)
	<-done
	if err != nil {
		return nil, err
	}
	cfg := s.cfg.Load
	cfg.WaitReady = 0
	rec.began = time.Now()
	return load.Start(ctx, cfg)
}

func name(cfg Config) string {
	if len(cfg.Command) > 0 {
		return strings.Join(cfg.Command, " ")
	}
	return cfg.Load.Addr
}

// test is one that is under way. One goroutine has it.
type test struct {
	cfg      Config
	subject  *subject
	recorder *recorder
	load     *load.Load
	report   *Report

	measured time.Time
	told     time.Time
	rates    []rate // of the last second
	excuses  []excuse
	number   int  // of the round
	hurry    bool // a round has had its whole time, in vain
}

type rate struct {
	at   time.Time
	good int
}

// rounds does them all, as long as there is a server.
func (t *test) rounds(ctx context.Context) {
	t.await(ctx, t.cfg.Settle, t.answered(t.recorder.answered())) // some, before the first
	s, r := t.subject, t.report
	t.await(ctx, t.cfg.Settle, t.steady()) // a server may start its workers one by one
	r.Watched = s.watched()
	_, _, _, worker := t.recorder.counts()
	r.Named = worker != ""
	if r.Watched {
		r.Processes, r.FDs = len(s.tree.alive()), s.descriptors()
	}
	for n := 1; n <= t.cfg.Rounds && ctx.Err() == nil; n++ {
		t.number = n
		r.Rounds = append(r.Rounds, t.round(ctx, n))
		if s.gone() {
			r.Ended, r.Exit = n, s.exit()
			return
		}
	}
}

// round is one.
func (t *test) round(ctx context.Context, n int) Round {
	r := Round{N: n, Began: time.Now()}
	s := t.subject
	if t.cfg.Action.kill {
		e, err := t.kill(ctx)
		if err != nil {
			r.Err = err.Error()
		} else {
			t.excuses = append(t.excuses, e)
		}
	} else if err := t.act(ctx); err != nil {
		r.Err = err.Error()
	}
	r.Action = time.Since(r.Began)
	end := r.Began.Add(t.cfg.Settle)
	if t.hurry {
		end = time.Now().Add(min(t.cfg.Settle, hurriedSettle))
	}
	t.await(ctx, time.Until(end), func() bool { return s.gone() || t.changed(&r) })
	t.await(ctx, time.Until(end), func() bool {
		return s.gone() || !t.report.Watched || len(s.tree.alive()) <= t.report.Processes
	})
	if t.report.Watched {
		if alive := s.tree.alive(); len(alive) <= t.report.Processes {
			r.Settled = max(1, time.Since(r.Began))
		} else {
			r.Stayed = stayed(alive, r.Began, s.main(), len(alive)-t.report.Processes)
		}
	}
	t.hurry = t.hurry || time.Now().After(end)
	// Every kind of client after all that, also those that the action has cut.
	answered := t.answered(t.recorder.answered())
	t.await(ctx, max(time.Until(end), t.cfg.Load.Timeout, time.Second), func() bool { return s.gone() || answered() })
	r.Answered = answered()
	t.await(ctx, max(0, t.cfg.Every-time.Since(r.Began)), func() bool { return s.gone() })
	if t.report.Watched {
		r.Processes, r.FDs = len(s.tree.alive()), s.descriptors()
	}
	return r
}

// hurriedSettle is how long a round may take when one has had the whole time in vain: the
// verdict stands, and a person waits for it.
const hurriedSettle = 5 * time.Second

// act does the action, and looks at the processes meanwhile.
func (t *test) act(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.cfg.Settle, fmt.Errorf("not within %v", t.cfg.Settle))
	defer cancel()
	pid := t.subject.main()
	if pid == 0 && t.cfg.Action.needsPID {
		return errors.New("the server's main process is not known, or has ended")
	}
	done := make(chan error, 1)
	go func() { done <- t.cfg.Action.do(ctx, pid) }()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
			}
			return err
		case <-tick.C:
			t.look()
		}
	}
}

// steadyTime is how long nothing may have changed about a server's processes for it to have
// started, and newTime how long a process has to live to be one that serves, where that is
// all that is known of it.
const (
	steadyTime = time.Second
	newTime    = 500 * time.Millisecond
)

// steady is a condition: no process has come or gone for a while.
func (t *test) steady() func() bool {
	return func() bool {
		if t.subject.tree == nil {
			return true
		}
		for _, l := range t.subject.tree.lives {
			if time.Since(l.First) < steadyTime || !l.Ended.IsZero() && time.Since(l.Ended) < steadyTime {
				return false
			}
		}
		return true
	}
}

// changed tells whether another process serves, by all that the server shows, or that there
// is nothing to wait for.
func (t *test) changed(r *Round) bool {
	if r.Changed > 0 || t.cfg.Unchanged || !t.report.Watched && !t.report.Named {
		return true
	}
	var at time.Time
	if t.report.Named {
		first, ok := t.recorder.firstSince(r.Began)
		if !ok {
			return false
		}
		at, r.By = first, "answer"
	}
	if t.report.Watched {
		// One that is still there after a while is no helper of a moment.
		least := lookTime
		if !t.report.Named {
			least = newTime
		}
		young := t.subject.tree.since(r.Began)
		young = slices.DeleteFunc(young, func(l *Life) bool { return time.Since(l.First) < least })
		if len(young) == 0 || !t.report.Named && !t.subject.tree.endedSince(r.Began) {
			return false
		}
		if !t.report.Named {
			at, r.By = young[0].First, "process"
		}
	}
	r.Changed = max(1, at.Sub(r.Began))
	return true
}

// stayed are those of before that are too many: the oldest, but for the main process.
func stayed(alive []*Life, began time.Time, main, many int) (list []*Life) {
	for _, l := range alive {
		if l.First.Before(began) && l.PID != main && len(list) < many {
			list = append(list, l)
		}
	}
	return list
}

// answered is a condition: every kind of client has had two good answers more than these.
func (t *test) answered(before map[load.Kind]int) func() bool {
	return func() bool {
		now := t.recorder.answered()
		for kind, n := range t.cfg.Load.Clients {
			if n > 0 && now[kind] < before[kind]+2 {
				return false
			}
		}
		return true
	}
}

// await waits until done, for that long at most, and looks and tells meanwhile.
func (t *test) await(ctx context.Context, limit time.Duration, done func() bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for t.look(); !done(); t.look() {
		select {
		case <-tick.C:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// look notes how it stands, and tells.
func (t *test) look() {
	t.subject.look()
	now := time.Now()
	if now.Sub(t.measured) >= measureTime {
		t.measured = now
		t.subject.measure()
	}
	if now.Sub(t.told) < 200*time.Millisecond {
		return
	}
	t.told = now
	good, failed, idle, last := t.recorder.counts()
	t.rates = append(t.rates, rate{now, good})
	for len(t.rates) > 2 && now.Sub(t.rates[1].at) >= time.Second {
		t.rates = t.rates[1:]
	}
	p := Progress{Elapsed: now.Sub(t.report.Began), Round: t.number, Rounds: t.cfg.Rounds,
		Answered: good, Failed: failed, ClosedIdle: idle, Worker: last}
	if d := now.Sub(t.rates[0].at); d > 0 {
		p.Rate = float64(good-t.rates[0].good) / d.Seconds()
	}
	if t.subject.tree != nil {
		p.Processes = len(t.subject.tree.alive())
	}
	t.cfg.Progress(p)
}

// end stops the load and the program, and judges.
func (t *test) end(ctx context.Context) {
	r := t.report
	var result load.Result
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		result = t.load.Stop() // requests under way end within their timeout
	}()
	t.await(context.Background(), t.cfg.Load.Timeout, func() bool { return isClosed(stopped) })
	<-stopped
	for _, e := range t.excuses {
		result = result.ExceptAt(e.at, e.peers)
	}
	r.Load, r.Failures = result, result.Log()
	r.Timeline, r.Latency = t.recorder.timeline(), t.recorder.histogram()
	slices.SortStableFunc(r.Failures, func(a, b load.Failure) int { return a.When.Compare(b.When) })
	r.Took = time.Since(r.Began)
	r.P99In, r.P99Out = r.around()
	for _, f := range r.Failures {
		if n := r.round(f.When); n > 0 {
			if f.Class == load.ClosedIdle {
				r.Rounds[n-1].Idle++
			} else {
				r.Rounds[n-1].Failed++
			}
		}
	}
	if s := t.subject; s.tree != nil {
		r.Zombies = s.tree.zombies()
		r.Left = s.stop()
		r.Lives, r.Memory = s.tree.lives, s.memory
	} else {
		s.stop()
	}
	r.Findings = judge(r, context.Cause(ctx))
}
