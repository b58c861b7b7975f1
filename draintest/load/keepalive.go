package load

import (
	"context"
	"fmt"
	"time"
)

var past = time.Unix(1, 0)

// runKept is runClient for a client that keeps its connection, and has one request under
// way. A request whose time comes while the one before is under way is late.
func (l *Load) runKept(kind Kind, next time.Time, interval time.Duration) {
	defer func() { l.missed(kind, next, interval) }()
	var kept link
	defer kept.close()
	rest := l.rest
	switch kind {
	case WebSocket:
		rest = l.restEcho
	case TCP, UDP:
		rest = l.restLine
	}
	for rest(&kept, next) {
		seq, ok := l.begin(kind, next)
		if !ok {
			return
		}
		out := l.client.do(kind, seq, &kept)
		l.record(next, out)
		if f := out.closing; f != nil {
			f.Began, f.Think = f.When, 0 // idle for no time
			l.closedIdle(*f)
		}
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
			detail := "idle, and there came "
			if err != nil {
				detail = "idle: " + err.Error()
			} else {
				more, _ := kept.br.Peek(kept.br.Buffered())
				detail += fmt.Sprintf("%.100q", more)
			}
			f := kept.last
			f.Began, f.Think, f.Detail = idle, time.Since(idle), detail
			kept.close()
			l.closedIdle(f)
		case l.ctx.Err() == nil:
			l.woken(until, idle)
		}
	}
	return l.wait(until)
}

// wait waits for a time, and returns false if the load halts.
func (l *Load) wait(until time.Time) bool {
	wait := time.Until(until)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		if wait > 0 {
			l.woken(until, until)
		}
		return true
	case <-l.ctx.Done():
		return false
	}
}

// between counts what has become of a connection between two requests: as a request that has
// failed, unless it is ClosedIdle.
func (l *Load) between(f Failure) {
	if f.Class == ClosedIdle {
		l.closedIdle(f)
	} else if _, ok := l.begin(f.Kind, f.When); ok {
		l.record(f.When, outcome{kind: f.Kind, failure: &f})
	}
}

// closedIdle counts a connection that has not been left alone, of which all but when it was
// seen is told.
func (l *Load) closedIdle(f Failure) {
	f.When, f.Class = time.Now(), ClosedIdle
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.closedIdle++
	l.note(f)
	l.observe(Request{Kind: f.Kind, Intended: f.When, Ended: f.When, Worker: f.Worker, Failure: &f})
	l.announce()
}
