package drain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// grace is what a server gets to end after its last connection has. Shutdown can
// wait longer than it should, for handlers whose connection was cut, and in
// HTTP/2 (golang/go#81153).
const grace = time.Second

// soonest is the shortest time between two looks at idle connections.
const soonest = 10 * time.Millisecond

// Serve accepts and serves until a drain has ended, and returns nil then. If the
// server fails, Serve drains the connections that are open, and returns the
// server's error, wrapped. A second call returns [ErrServed].
func (d *Drainer) Serve() error {
	d.mu.Lock()
	if d.started {
		d.mu.Unlock()
		return ErrServed
	}
	d.started = true
	drained := d.begun.Load()
	d.mu.Unlock()
	if drained {
		<-d.done
		return nil
	}

	var moving sync.WaitGroup
	if d.moves() {
		moving.Go(d.receive)
		if d.own {
			moving.Go(d.followSuccessor)
		}
	}
	var ended error
	inner := d.serveInner()
	served := inBackground(func() { ended = d.serveOn(d.ln) })
	var failure error
	select {
	case <-d.draining:
	case <-served:
		failure = d.failed(ended)
	}
	d.drain(served, &moving, inner)
	return failure
}

// begin makes the drain begin, unless it has.
func (d *Drainer) begin(timeout time.Duration, queue bool) (first, started bool) {
	if timeout <= 0 {
		timeout = d.cfg.Timeout
	}
	if d.own && isClosed(d.cfg.Successor.Replaced()) {
		d.Move(Give) // before it begins to close what it could give away
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun.Load() {
		return false, d.started
	}
	d.timeout, d.since, d.last = timeout, time.Now(), queue
	d.emptying = queue && d.started && d.gate == nil
	d.begun.Store(true)
	close(d.draining)
	d.hush()
	return true, d.started
}

// failed notes that the server has ended. That is a failure if nobody wanted it.
func (d *Drainer) failed(err error) error {
	if first, _ := d.begin(0, false); !first {
		return nil
	}
	if err == nil {
		err = errEnded
	}
	d.log.Error("server failed, its connections are drained", "error", err)
	return fmt.Errorf("drain: the server of %s failed: %w", d.ln.Addr(), err)
}

// drain is the drain, once it has begun, in Serve's goroutine. Nobody writes
// timeout and since any more.
func (d *Drainer) drain(served <-chan struct{}, moving *sync.WaitGroup, inner *inner) {
	open, idle := d.Active()
	d.log.Info("draining", "open", open, "idle", idle, "timeout", d.timeout)
	d.emptyQueue()
	d.ln.stop()

	d.sayGoodbye() // who connects again finds another process
	var telling sync.WaitGroup
	end := make(chan struct{})
	switch {
	case d.streams != nil:
		telling.Go(func() { d.tellStreams(end) })
	case d.moves():
		moving.Go(d.giveAll)
	}
	var shut <-chan struct{}
	// It ends when what was left has been cut, so that no server closes that first, and it
	// counts as finished.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !d.http && d.streams == nil {
		d.awaitLooks()
		shut = d.shutdown(ctx, nil)
	}
	for in := d.await(shut); in; in = d.await(shut) {
		if !d.given() {
			continue
		}
		d.settle(moving)
		d.receiveRest()
		if d.empty() {
			break
		}
	}
	d.cut() // if anything is left
	cancel()
	d.settle(moving)
	close(end)
	telling.Wait()
	d.parked.Wait()
	d.leaves.Wait()
	if d.http || d.streams != nil {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		shut = d.shutdown(ctx, inner)
	}
	d.ln.Close()
	d.endDeliveries()
	late := time.After(2 * grace)
	for _, end := range []<-chan struct{}{shut, served} {
		select {
		case <-end:
		case <-late:
			d.log.Warn("the server did not stop, and is left behind")
			d.finish()
			return
		}
	}
	d.finish()
}

// emptyTime is how long connections may go on coming when the queue is emptied, and
// emptyPause the time between two looks whether there are any.
const (
	emptyTime  = time.Second
	emptyPause = time.Millisecond
)

// emptyQueue lets the server accept what is queued, if that is wanted.
func (d *Drainer) emptyQueue() {
	d.mu.Lock()
	emptying := d.emptying
	d.mu.Unlock()
	if !emptying {
		return
	}
	for end := time.Now().Add(emptyTime); acceptable(d.ln.socket) && time.Now().Before(end); {
		select {
		case <-time.After(emptyPause):
		case <-d.cutting:
			end = time.Now()
		}
	}
	d.mu.Lock()
	d.emptying = false
	d.hush()
	d.mu.Unlock()
}

// await waits until no connection is left and shut, if any, is closed. It returns
// false if that does not happen in time.
func (d *Drainer) await(shut <-chan struct{}) bool {
	deadline := time.NewTimer(d.timeout - time.Since(d.since))
	defer deadline.Stop()
	idle := time.NewTimer(d.cfg.LameDuck)
	defer idle.Stop()
	for shut != nil || !d.empty() {
		select {
		case <-d.changed:
		case <-shut:
			shut = nil
		case <-idle.C:
			idle.Reset(max(soonest, d.closeIdle(d.cfg.LameDuck)))
		case <-deadline.C:
			return false
		case <-d.cutting:
			return false
		}
	}
	return true
}

// settle ends the moving of connections.
func (d *Drainer) settle(moving *sync.WaitGroup) {
	if isClosed(d.settled) {
		return
	}
	d.mu.Lock()
	close(d.settled)
	if d.moves() {
		d.cfg.Queue.SetDeadline(past)
	}
	d.mu.Unlock()
	moving.Wait()
	if d.moves() {
		d.cfg.Queue.SetDeadline(time.Time{})
	}
}

// shutdown calls the server's Shutdown, and that of the inner server, if there is one.
func (d *Drainer) shutdown(ctx context.Context, inner *inner) <-chan struct{} {
	return inBackground(func() {
		if err := errors.Join(d.srv.Shutdown(ctx), inner.shutdown(ctx)); err != nil {
			d.log.Warn("the server's Shutdown failed", "error", err)
		}
	})
}

// finish makes the report final.
func (d *Drainer) finish() {
	d.mu.Lock()
	d.over = true
	d.report.Took = max(1, time.Since(d.since))
	d.mu.Unlock()
	r := d.Report()
	if d.own {
		d.cfg.Queue.Close()
	}
	d.log.Info("drained", "moved", r.Moved, "finished", r.Finished, "closed_idle", r.ClosedIdle, "cut", r.Cut, "took", r.Took)
	close(d.done)
}

// errEnded is the failure of a server that ended without an error.
var errEnded = errors.New("Serve returned before it was told to")

// inBackground runs f in a goroutine, and returns a channel that is closed at its end.
func inBackground(f func()) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		f()
	}()
	return end
}
