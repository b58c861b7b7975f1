package handover

import (
	"cmp"
	"context"
	"fmt"
	"strings"
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
	passed chan struct{} // closed when it has not
	until  time.Time     // belongs to upgrades.mu

	mu    sync.Mutex
	tally tally
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
		served: make(chan error, 1), failed: make(chan string, 1), passed: make(chan struct{}),
	}
}

// saw is told of every change of a worker's state. It does not wait.
func (t *probation) saw(w workerset.Worker) {
	if t == nil {
		return
	}
	t.mu.Lock()
	why := t.tally.saw(w)
	t.mu.Unlock()
	t.fails(why)
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
			if t.p.cfg.Health != "" {
				asking.Go(func() { t.ask(ctx) })
			}
		case why := <-t.failed:
			t.p.upgrades.failsProbation(why)
			return
		case <-over:
			over = nil
			if len(t.failed) == 0 {
				close(t.passed)
				t.p.upgrades.finish(control.Event{Result: control.Done})
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// passes waits until a probation, if there is one, has been passed. Another end is not
// waited for: it is this process's, too, or that of ctx.
func (t *probation) passes(ctx context.Context) bool {
	if t == nil {
		return true
	}
	select {
	case <-t.passed:
		return true
	case <-ctx.Done():
		return false
	}
}

// healthEvery is how often the workers are asked for their health.
const healthEvery = time.Second

// ask asks the workers for their health until ctx ends.
func (t *probation) ask(ctx context.Context) {
	path := strings.TrimPrefix(t.p.cfg.Health, "http:")
	for {
		err := t.p.set.Healthy(ctx, path)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.mu.Lock()
			why := t.tally.unhealthy(err)
			t.mu.Unlock()
			t.fails(why)
		}
		select {
		case <-time.After(healthEvery):
		case <-ctx.Done():
			return
		}
	}
}
