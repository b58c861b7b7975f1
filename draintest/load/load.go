package load

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrStopped is returned by the Wait methods when the load has ended, by Stop, by
// its context or by MaxRequests, and what they wait for has not come.
var ErrStopped = errors.New("load: the load has ended")

// ErrNotReady is wrapped by the error of Start and Ready when there was not a good answer in
// time.
var ErrNotReady = errors.New("no good answer")

// A Load is a set of clients at work. Start makes one; its Stop must be called.
type Load struct {
	client *client
	began  time.Time

	ctx    context.Context // when it ends: start no more requests
	cancel context.CancelFunc
	halted atomic.Pointer[time.Time] // when it ended
	done   chan struct{}             // closed: no client and no request is left

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when an outcome is recorded
	tally   tally
}

// tally is what a Result is made from.
type tally struct {
	kinds      map[Kind]*kindTally
	workers    map[string]int
	log        []Failure
	left       int
	closedIdle int
	late       time.Duration
	behind     time.Duration
	latency    histogram
	started    uint64
	ended      time.Time
}

type kindTally struct {
	started, ok int
	missed      int
	unmatched   int
	failures    Failures
	latency     histogram
}

// Start begins a load. Its errors are those of Config.Validate, of resolving
// Config.Addr, and, with Config.WaitReady, the last failure when there was not a good
// answer for every kind of client in time.
//
// When ctx ends, the load starts no more requests, as after Stop; those under way
// go on. Stop must still be called.
func Start(ctx context.Context, cfg Config) (*Load, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c, err := newClient(cfg.withDefaults(), newRun())
	if err != nil {
		return nil, err
	}
	return start(ctx, c)
}

// Ready waits until the server has answered every kind of client, for Config.WaitReady at
// most. Its errors are those of Start.
func Ready(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	c, err := newClient(cfg.withDefaults(), newRun())
	if err != nil || c.cfg.WaitReady == 0 {
		return err
	}
	return c.waitReady(ctx)
}

// newRun makes the ids of a load unlike those of any other.
func newRun() string {
	var run [6]byte
	rand.Read(run[:]) // never fails
	return hex.EncodeToString(run[:])
}

func start(ctx context.Context, c *client) (*Load, error) {
	if c.cfg.WaitReady > 0 {
		if err := c.waitReady(ctx); err != nil {
			return nil, err
		}
	}
	l := &Load{
		client:  c,
		began:   time.Now(),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		tally:   tally{kinds: map[Kind]*kindTally{}, workers: map[string]int{}},
	}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, l.stop)
	clients, total := 0, 0
	for kind, n := range c.cfg.Clients {
		total += n
		if n > 0 {
			l.tally.kinds[kind] = &kindTally{}
		}
	}
	var all sync.WaitGroup
	for _, kind := range slices.Sorted(maps.Keys(c.cfg.Clients)) {
		for nth := range c.cfg.Clients[kind] {
			// Spread over one interval, so that clients do not start in step.
			interval := c.cfg.interval(kind, nth)
			first := l.began.Add(time.Duration(float64(interval) * float64(clients) / float64(total)))
			clients++
			all.Go(func() {
				if kind.kept() && !kind.streams() {
					l.runKept(kind, first, interval)
				} else {
					l.runClient(kind, first, interval)
				}
			})
		}
	}
	go func() {
		all.Wait()
		l.stop()
		unhook()
		l.mu.Lock()
		l.tally.ended = time.Now()
		l.mu.Unlock()
		close(l.done)
	}()
	return l, nil
}

// runClient starts requests at their intended times until the load halts, and
// waits for those under way.
func (l *Load) runClient(kind Kind, next time.Time, interval time.Duration) {
	shared := l.client.newLink(kind, l.closedIdle) // by streams
	defer shared.close()
	var requests sync.WaitGroup
	defer requests.Wait()
	defer func() { l.missed(kind, next, interval) }()
	slots := make(chan struct{}, l.client.cfg.MaxInFlight)
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	free := next // since when nothing but its time has kept the client from its next request
	for {
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return
		}
		l.woken(next, free)
		select {
		case slots <- struct{}{}:
		default:
			select {
			case slots <- struct{}{}:
				free = time.Now()
			case <-l.ctx.Done():
				return
			}
		}
		seq, ok := l.begin(kind, next)
		if !ok {
			return
		}
		intended, own := next, shared
		if !kind.streams() {
			own = &link{}
		}
		requests.Go(func() {
			l.record(intended, l.client.do(kind, seq, own))
			<-slots
		})
		next = next.Add(interval)
		timer.Reset(time.Until(next))
	}
}

// missed counts the requests of a client, from next on, whose time had come and that were
// not begun when the load ended, but for one that may have been due just then.
func (l *Load) missed(kind Kind, next time.Time, interval time.Duration) {
	if late := l.halted.Load().Sub(next); late >= 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tally.kinds[kind].missed += int(late / interval)
	}
}

// stop makes the load start no more requests.
func (l *Load) stop() {
	now := time.Now()
	l.halted.CompareAndSwap(nil, &now)
	l.cancel()
}

// begin counts a request that is about to start and gives it its number.
func (l *Load) begin(kind Kind, intended time.Time) (seq uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.ctx.Done(): // select chooses at random when the client's turn has come too
		return 0, false
	default:
	}
	l.tally.started++
	if l.tally.started == uint64(l.client.cfg.MaxRequests) {
		l.stop()
	}
	l.tally.kinds[kind].started++
	l.tally.late = max(l.tally.late, time.Since(intended))
	return l.tally.started, true
}

func (l *Load) record(intended time.Time, out outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.tally.kinds[out.kind]
	if f := out.failure; f != nil {
		k.failures[f.Class]++
		l.note(*f)
	} else {
		k.ok++
		if out.unmatched {
			k.unmatched++
		}
		k.latency.add(out.answered.Sub(intended))
		l.tally.latency.add(out.answered.Sub(intended))
	}
	if out.worker != "" {
		l.tally.workers[out.worker]++
	}
	l.observe(Request{Kind: out.kind, Intended: intended, Ended: time.Now(), Worker: out.worker, Failure: out.failure})
	if out.left {
		l.tally.left++
	}
	l.announce()
}

// A Request is one that has ended.
type Request struct {
	Kind     Kind
	Intended time.Time // when it should have been sent
	Ended    time.Time // when its answer had come, or it had failed
	Worker   string    // X-Worker of the answer, if there was one
	Failure  *Failure  // nil if it was answered well. It is not to be changed
}

// observe tells of a request. The caller holds mu.
func (l *Load) observe(r Request) {
	if f := l.client.cfg.Observe; f != nil {
		f(r)
	}
}

// woken notes how late a client is that only had to wait for its time since it was free.
func (l *Load) woken(intended, free time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.behind = max(l.tally.behind, min(time.Since(intended), time.Since(free)))
}

// note keeps a failure. The caller holds mu, as that of announce does.
func (l *Load) note(f Failure) {
	if len(l.tally.log) < maxLog {
		l.tally.log = append(l.tally.log, f)
	}
}

// announce wakes who awaits a change.
func (l *Load) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Stop starts no more requests, waits for all that are under way (each ends
// within Config.Timeout) and returns the result. It may be called again, and then
// returns the same.
func (l *Load) Stop() Result {
	l.stop()
	<-l.done
	return l.Snapshot()
}

// Done is closed when the load has ended: all its requests have.
func (l *Load) Done() <-chan struct{} { return l.done }
