package drain

import (
	"time"
)

// This file is what a Drainer does at its limit of connections. It accepts none: they wait
// in the kernel's queue, where others accept them. And it leaves those that move to others,
// as long as there are others: what is queued and has been left alone by all for a while,
// nobody else wants.

// yieldTime is that while. It is shorter than roomTime, after which who has given a
// connection away takes it back. The more often nobody has wanted one, the more are taken
// before it is found out again.
const (
	yieldTime = 20 * time.Millisecond
	maxBatch  = 64
)

// crowdedTime is how often it is said that the limit was reached, at most.
const crowdedTime = time.Minute

// crowded tells whether there are as many connections as there may be. The caller holds mu.
func (d *Drainer) crowded() bool {
	limit := d.cfg.MaxConns
	return limit > 0 && !d.emptying && len(d.conns)+d.accepting >= limit
}

// pause ends a call of accept(2) that is under way when there are too many connections
// without it. The caller holds mu.
func (d *Drainer) pause() {
	if limit := d.cfg.MaxConns; limit > 0 && d.accepting > 0 && len(d.conns) >= limit && !d.emptying && !d.pausing {
		d.pausing = d.ln.wake()
	}
}

// unpause undoes that. A drain, which sets the deadline for good, has not begun. The caller
// holds mu.
func (d *Drainer) unpause() {
	if d.pausing {
		d.pausing = false
		_ = d.ln.socket.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Time{})
	}
}

// roomier wakes who waits for there to be fewer connections. The caller holds mu.
func (d *Drainer) roomier() {
	if d.cfg.MaxConns > 0 && !d.crowded() {
		wake(d.fewer)
	}
}

// sayCrowded says that accepting pauses.
func (d *Drainer) sayCrowded() {
	now := time.Now()
	d.mu.Lock()
	say := d.crowdedAt.IsZero() || now.Sub(d.crowdedAt) >= crowdedTime
	if say {
		d.crowdedAt = now
	}
	d.mu.Unlock()
	if say {
		d.log.Warn("as many connections are open as may be: none is accepted until there are fewer", "limit", d.cfg.MaxConns)
	}
}

// A yield is what is known of others who may take connections.
type yield struct {
	batch int // how many were taken when nobody else wanted the first of them
	left  int // of these
}

// takesNext tells whether to take the next connection, and may wait before.
func (d *Drainer) takesNext(y *yield) bool {
	if limit := d.cfg.MaxConns; limit == 0 || d.size() < limit {
		*y = yield{}
		return true
	}
	if y.left--; y.left >= 0 {
		return true
	}
	id := d.cfg.Queue.Next()
	select {
	case <-time.After(yieldTime):
	case <-d.settled:
		return false
	}
	if id == 0 || d.cfg.Queue.Next() != id || !Role(d.role.Load()).takes() {
		*y = yield{}
		return false
	}
	y.batch = min(max(1, 2*y.batch), maxBatch)
	y.left = y.batch - 1
	return true
}
