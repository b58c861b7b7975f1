package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// waitReady makes requests of each kind until one is answered well.
func (c *client) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.WaitReady,
		fmt.Errorf("not within WaitReady (%v)", c.cfg.WaitReady))
	defer cancel()
	deadline, _ := ctx.Deadline()
	probe := *c
	probe.run += "-probe"
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	seq := uint64(0)
	for _, kind := range slices.Sorted(maps.Keys(c.cfg.Clients)) {
		var last *Failure
		for c.cfg.Clients[kind] > 0 {
			seq++
			probe.cfg.Timeout = min(c.cfg.Timeout, time.Until(deadline))
			own := probe.newLink(kind, nil)
			out := probe.do(kind, seq, own)
			own.close()
			if out.failure == nil {
				break
			}
			// The last one may time out just because so little time was left.
			if last == nil || out.failure.Class != Timeout {
				last = out.failure
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			if ctx.Err() != nil { // looked at alone: with both, select would toss a coin
				return fmt.Errorf("load: %w to a request of kind %v from %s: %w; last failure: %v",
					ErrNotReady, kind, c.cfg.addr(kind), context.Cause(ctx), last)
			}
		}
	}
	return nil
}

// WaitWorker blocks until an answer that ends after the call carries an X-Worker
// header that fulfils pred. pred is called by the goroutine that waits and
// may use the Load. The error is ctx's or ErrStopped, wrapped.
func (l *Load) WaitWorker(ctx context.Context, pred func(xWorker string) bool) error {
	workers := func() map[string]int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return maps.Clone(l.tally.workers)
	}
	seen := workers()
	return l.await(ctx, "an answer of a certain worker", func() bool {
		now := workers()
		for w, n := range now {
			if n > seen[w] && pred(w) {
				return true
			}
		}
		seen = now
		return false
	})
}

// WaitRequests blocks until n more requests, of whatever kind, have been answered
// well. Those under way at the call count. The error is ctx's or ErrStopped, wrapped.
func (l *Load) WaitRequests(ctx context.Context, n int) error {
	want := l.goodAnswers()
	return l.await(ctx, fmt.Sprintf("%d more good answers", n), func() bool {
		have := 0
		for k, ok := range l.goodAnswers() {
			have += ok - want[k]
		}
		return have >= n
	})
}

// WaitEach is WaitRequests with n good answers for every kind of client.
func (l *Load) WaitEach(ctx context.Context, n int) error {
	want := l.goodAnswers()
	return l.await(ctx, fmt.Sprintf("%d more good answers of each kind", n), func() bool {
		for k, ok := range l.goodAnswers() {
			if ok-want[k] < n {
				return false
			}
		}
		return true
	})
}

func (l *Load) goodAnswers() map[Kind]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	good := map[Kind]int{}
	for k, t := range l.tally.kinds {
		good[k] = t.ok
	}
	return good
}

// await blocks until cond, which is asked again after every outcome, is true.
func (l *Load) await(ctx context.Context, what string, cond func() bool) error {
	for {
		// Both before cond, so that what happens after it has looked is not missed.
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		ended := false
		select {
		case <-l.done:
			ended = true
		default:
		}
		if cond() {
			return nil
		}
		if ended {
			return fmt.Errorf("waiting for %s: %w\n%v", what, ErrStopped, l.Snapshot())
		}
		select {
		case <-changed:
		case <-l.done:
		case <-ctx.Done():
			return fmt.Errorf("load: waiting for %s: %w\n%v", what, context.Cause(ctx), l.Snapshot())
		}
	}
}
