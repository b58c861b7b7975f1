package drain

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// When the service stops, handlers are told at once, and nothing is queued.
func TestStreamStop(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	r.conf.LameDuck = time.Hour
	a := r.streams(tally(t, "a"))
	c := dial(t, r.ln.Addr())
	c.send("one\nhalf")
	c.says(`1 "one\n" a`)
	until(t, "half has been read", func() bool { return a.quietStreams(1) })
	a.DrainQueue(time.Hour)
	c.says(`1 "half" goodbye`)
	c.closed()
	a.drained(1, 0, 0)
	if r.queue().Pending() {
		t.Error("something is queued")
	}
}

// quietStreams tells whether all of so many handlers wait for more.
func (g *running) quietStreams(n int) bool {
	conns := g.open()
	for _, c := range conns {
		s := c.stream.Load()
		if s == nil || readable(c.Conn) {
			return false
		}
		s.mu.Lock()
		reads := s.reads
		s.mu.Unlock()
		if reads == 0 {
			return false
		}
	}
	return len(conns) == n
}

// Where nothing can move, handlers are told so when the drain begins.
func TestStreamNowhere(t *testing.T) {
	t.Parallel()
	for name, ln := range map[string]func(net.Listener) net.Listener{
		"no queue": func(ln net.Listener) net.Listener { return ln },
		"wrapped":  func(ln net.Listener) net.Listener { return wrappedListener{ln} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, "tcp")
			cfg := Config{}
			if name == "wrapped" {
				cfg.Queue = r.queue()
			}
			a := serve(t, &Streams{Handler: tally(t, "a")}, ln(hold(t, r.ln)), cfg)
			c := dial(t, r.ln.Addr())
			c.send("one\n")
			c.says(`1 "one\n" a`)
			a.Move(Give)
			a.Drain(0)
			c.says(`1 "" goodbye`)
			a.drained(1, 0, 0)
		})
	}
}

// What neither moves nor ends is cut at the end, counted and named.
func TestStreamCut(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	var told, ended atomic.Int64
	in := make(chan struct{}, 2)
	a := r.streams(func(ctx context.Context, c *Stream) {
		in <- struct{}{}
		<-ctx.Done()
		told.Add(1)
		for {
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, ErrLeave) {
				told.Add(1)
			} else if err != nil {
				ended.Add(1)
				return
			}
		}
	})
	c, other := dial(t, r.ln.Addr()), dial(t, r.ln.Addr())
	<-in
	<-in
	if open, idle := a.Active(); open != 2 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
	if list := a.Open(9); len(list) != 2 || list[0].State != "open" {
		t.Errorf("%+v", list)
	}
	a.DrainQueue(50 * time.Millisecond)
	c.closed()
	other.closed()
	rep := a.drained(0, 0, 2)
	if names := []string{c.LocalAddr().String(), other.LocalAddr().String()}; !slices.Contains(names, rep.CutConns[0]) || rep.CutConns[0] == rep.CutConns[1] {
		t.Errorf("%q of %q were cut", rep.CutConns, names)
	}
	if told.Load() != 4 || ended.Load() != 2 { // by the context and by Read, once each
		t.Errorf("told %d times, %d ended", told.Load(), ended.Load())
	}
}
