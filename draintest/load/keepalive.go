package load

import (
	"context"
	"fmt"
	"time"
)

var past = time.Unix(1, 0)

// runKeepAlive is runClient for a client that keeps its connection. A request whose
// time comes while the one before is under way is late.
func (l *Load) runKeepAlive(next time.Time, interval time.Duration) {
	var kept link
	defer kept.close()
	for l.rest(&kept, next) {
		seq, ok := l.begin(KeepAlive, next)
		if !ok {
			return
		}
		l.record(next, l.client.do(KeepAlive, seq, &kept))
		next = next.Add(interval)
	}
}

// rest waits for the time of the next request, and reads meanwhile, so that it does not
// take a request to see that the connection has ended. It returns false if the load
// halts.
func (l *Load) rest(kept *link, until time.Time) bool {
	if conn := kept.conn; conn != nil {
		idle := time.Now()
		conn.SetReadDeadline(until) // fails only where the read fails as well
		unhook := context.AfterFunc(l.ctx, func() { conn.SetReadDeadline(past) })
		_, err := kept.br.Peek(1)
		unhook()
		switch {
		case !isTimeout(err):
			l.closedIdle(kept, idle, err)
		case l.ctx.Err() == nil:
			l.woken(until)
		}
	}
	wait := time.Until(until)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		if wait > 0 {
			l.woken(until)
		}
		return true
	case <-l.ctx.Done():
		return false
	}
}

// closedIdle counts a connection that has not been left alone, and closes it. Without
// an error something has come.
func (l *Load) closedIdle(kept *link, idle time.Time, err error) {
	f := kept.last
	f.Began, f.When, f.Class = idle, time.Now(), ClosedIdle
	if err != nil {
		f.Detail = "idle: " + err.Error()
	} else {
		more, _ := kept.br.Peek(kept.br.Buffered())
		f.Detail = fmt.Sprintf("idle, and there came %.100q", more)
	}
	kept.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.closedIdle++
	l.note(f)
	l.observe(Request{Kind: f.Kind, Intended: f.When, Ended: f.When, Worker: f.Worker, Failure: &f})
	l.announce()
}
