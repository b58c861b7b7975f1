package handover

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/workerset"
)

// Defaults of a Config.
const (
	DefaultProbation         = 10 * time.Second
	DefaultProbationFailures = 1
)

// tally decides whether a generation on probation has failed. What counts is its own
// workers: that one fails that should go is no news.
type tally struct {
	allowed int
	failed  map[string]bool // workers
	bad     int             // answers about their health
}

// saw notes a change of a worker's state. why is set when that was one failure too many.
func (t *tally) saw(w workerset.Worker) (why string) {
	degraded := w.State == "degraded"
	if w.Stale || !degraded && !wire.Cause(w.Cause).Failure() {
		return ""
	}
	name := fmt.Sprintf("%s/%d (id %d)", w.Group, w.Slot, w.ID)
	if t.failed[name] {
		return ""
	}
	if t.failed == nil {
		t.failed = map[string]bool{}
	}
	t.failed[name] = true
	last := fmt.Sprintf("worker %s: %s: %s", name, w.Cause, w.Reason)
	if degraded {
		last = fmt.Sprintf("worker %s: degraded", name)
	}
	return t.verdict(last)
}

// unhealthy notes an answer about a worker's health.
func (t *tally) unhealthy(err error) (why string) {
	t.bad++
	return t.verdict(fmt.Sprintf("not healthy: %v", err))
}

func (t *tally) verdict(last string) string {
	n := len(t.failed) + t.bad
	if n <= t.allowed {
		return ""
	}
	return fmt.Sprintf("%d failures, and %d are allowed; the last one: %s", n, t.allowed, last)
}

// probation is the time after an upgrade in which its generation has to prove itself.
type probation struct {
	p      *parent
	time   time.Duration // after its workers have replaced the others
	served chan error    // gets the result of that
	failed chan string   // gets why it has failed

	mu    sync.Mutex
	tally tally
	over  bool // nothing is counted any more
}

// newProbation is that of this generation, or nil if it has none: it is the first, or one
// that was gone back to, or nobody wants it.
func (p *parent) newProbation() *probation {
	allowed := cmp.Or(p.cfg.ProbationFailures, DefaultProbationFailures)
	t := cmp.Or(p.cfg.Probation, DefaultProbation)
	if !p.up.HasPredecessor() || p.back != nil || t < 0 {
		return nil
	}
	return &probation{
		p: p, time: t, tally: tally{allowed: max(0, allowed)},
		served: make(chan error, 1), failed: make(chan string, 1),
	}
}

// saw is told of every change of a worker's state. It does not wait.
func (t *probation) saw(w workerset.Worker) {
	if t != nil {
		t.count(func(c *tally) string { return c.saw(w) })
	}
}

func (t *probation) count(what func(*tally) (why string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.fails(what(&t.tally))
	}
}

// end forgets what was counted: this generation may live long.
func (t *probation) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over, t.tally = true, tally{}
}

func (t *probation) fails(why string) {
	if why == "" {
		return
	}
	select {
	case t.failed <- why:
	default: // once is enough
	}
}

// run waits for the verdict, and acts on it, unless ctx ends before.
func (t *probation) run(ctx context.Context) {
	defer t.end()
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	var over <-chan time.Time
	for {
		select {
		case err := <-t.served:
			if err != nil {
				t.fails(err.Error())
				continue
			}
			over = time.After(t.time)
			t.p.upgrades.watched(time.Now().Add(t.time))
			if len(t.p.cfg.healthPaths()) > 0 {
				asking.Go(func() { t.ask(ctx) })
			}
		case why := <-t.failed:
			t.p.upgrades.failsProbation(why)
			return
		case <-over:
			over = nil
			if len(t.failed) == 0 {
				t.p.upgrades.finish(control.Event{Result: control.Done})
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// healthEvery is how often the workers are asked for their health.
const healthEvery = time.Second

// ask asks the workers for their health until ctx ends.
func (t *probation) ask(ctx context.Context) {
	paths := t.p.cfg.healthPaths()
	for {
		err := t.p.set.Healthy(ctx, paths)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.count(func(c *tally) string { return c.unhealthy(err) })
		}
		select {
		case <-time.After(healthEvery):
		case <-ctx.Done():
			return
		}
	}
}
