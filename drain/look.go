package drain

import "time"

// A server whose Shutdown is called may close what it has been given and not looked at:
// grpc-go does so with a connection that it has accepted in that very moment, whose client
// then sees a reset before the first byte. So Shutdown waits for a moment.

// looked notes that a server that is neither an http.Server nor Streams has begun with the
// connection.
func (c *conn) looked() {
	if !c.d.http && c.d.streams == nil && c.phase.Load() == fresh && c.phase.CompareAndSwap(fresh, busy) {
		c.d.poke()
	}
}

// awaitLooks waits until nothing is being accepted, and the server has read from every
// connection, or written to it: for the grace at most, since some have their reasons.
func (d *Drainer) awaitLooks() {
	late := time.NewTimer(min(grace, d.timeout))
	defer late.Stop()
	for !d.looked() {
		select {
		case <-d.changed:
		case <-late.C:
			return
		case <-d.cutting:
			return
		}
	}
}

func (d *Drainer) looked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		if c.phase.Load() == fresh {
			return false
		}
	}
	return d.accepting == 0
}
