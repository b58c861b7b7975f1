package drain

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// fake serves the site in the fake time of a bubble.
func fake(t *testing.T, cfg Config) (*running, *site, *pipes) {
	s, ln := newSite(), newPipes()
	return serve(t, &http.Server{Handler: s}, ln, cfg), s, ln
}

// after waits for the fake time since start.
func after(start time.Time, d time.Duration) { <-time.After(d - time.Since(start)) }

// closedAt checks when a connection ends: at that time, or a little later, as they are
// spread.
func (c *client) closedAt(start time.Time, want time.Duration) {
	c.t.Helper()
	c.closed()
	if got := time.Since(start); got < want || got > want+20*time.Millisecond {
		c.t.Errorf("closed after %v, want %v", got, want)
	}
}

func TestLameDuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, ln := fake(t, Config{})
		fresh, idle, slow := ln.dial(t), ln.dial(t), ln.dial(t)
		idle.get("/")
		idle.expect("hello", false)
		slow.get("/slow")
		<-s.entered
		synctest.Wait()
		if open, idle := d.Active(); open != 3 || idle != 2 {
			t.Errorf("%d open, %d idle", open, idle)
		}

		<-time.After(time.Hour) // how long they were idle before does not count
		start := time.Now()
		d.Drain(0)
		after(start, 3*time.Second)
		close(s.release)
		slow.expect("slow", false) // its handler ran when the drain began

		idle.closedAt(start, DefaultLameDuck)
		fresh.closedAt(start, DefaultLameDuck)
		slow.closedAt(start, 3*time.Second+DefaultLameDuck)
		// net/http looks a millisecond or so later whether its connections have ended.
		if r := d.drained(0, 3, 0); r.Took.Truncate(time.Second) != 8*time.Second {
			t.Errorf("took %v", r.Took)
		}
	})
}

// Many idle connections do not end at once, so that their clients do not all come back
// at once, but within a fifth of the lame-duck time.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, ln := fake(t, Config{LameDuck: time.Second})
		var clients []*client
		for range 500 {
			clients = append(clients, ln.dial(t))
		}
		synctest.Wait()
		start := time.Now()
		d.Drain(0)
		times := map[time.Duration]int{}
		ended := make(chan time.Duration)
		for _, c := range clients {
			go func() { c.closed(); ended <- time.Since(start) }()
		}
		for range clients {
			times[<-ended]++
		}
		for at, n := range times {
			if n > len(clients)/4 || at < time.Second || at > 1200*time.Millisecond+soonest {
				t.Errorf("%d closed after %v", n, at)
			}
		}
		d.drained(0, len(clients), 0)
	})
}

func TestLameDuckEndsWithTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, ln := fake(t, Config{LameDuck: time.Minute})
		idle, slow := ln.dial(t), ln.dial(t)
		slow.get("/slow")
		<-s.entered
		start := time.Now()
		d.Drain(6 * time.Second)
		after(start, 4*time.Second)
		close(s.release)
		slow.expect("slow", false)
		idle.closedAt(start, 6*time.Second)
		slow.closedAt(start, 6*time.Second)
		d.drained(0, 2, 0)
	})
}

func TestRequestsDuringDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, ln := fake(t, Config{})
		fresh, idle, half, trickling := ln.dial(t), ln.dial(t), ln.dial(t), ln.dial(t)
		idle.get("/")
		idle.expect("hello", false)
		half.send("GET / HT")
		synctest.Wait()
		start := time.Now()
		d.Drain(0)
		d.Drain(time.Nanosecond) // the first one counts

		after(start, 4*time.Second)
		fresh.get("/")
		fresh.expect("hello", true)
		fresh.closed()
		trickling.send("G")
		after(start, 4999*time.Millisecond)
		idle.get("/")
		idle.expect("hello", true)
		idle.closed()
		after(start, 20*time.Second)
		half.send("TP/1.1\r\nHost: x\r\n\r\n")
		half.expect("hello", true)
		half.closed()
		trickling.send("ET / HTTP/1.1\r\nHost: x\r\n\r\n")
		trickling.expect("hello", true)
		trickling.closed()
		d.drained(4, 0, 0)
	})
}

func TestTimeoutCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, ln := fake(t, Config{Timeout: 10 * time.Second})
		var clients []*client
		for range 12 {
			c := ln.dial(t)
			c.get("/slow")
			<-s.entered
			clients = append(clients, c)
		}
		start := time.Now()
		d.Drain(0)
		for _, c := range clients {
			c.closedAt(start, 10*time.Second)
		}
		if r := d.drained(0, 0, 12); len(r.CutConns) != maxNamed || r.CutConns[0] != "pipe" {
			t.Errorf("named: %q", r.CutConns)
		}
	})
}

// A handler that does not notice that its connection was cut holds nothing up.
func TestDeafHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, end := make(chan struct{}), make(chan struct{})
		ln := newPipes()
		d := serve(t, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(entered)
			<-end
		})}, ln, Config{})
		c := ln.dial(t)
		c.get("/")
		<-entered
		start := time.Now()
		d.Drain(0)
		c.closedAt(start, DefaultTimeout)
		d.drained(0, 0, 1)
		if took := time.Since(start); took > DefaultTimeout+2*grace {
			t.Errorf("Serve returned after %v", took)
		}
		close(end)
	})
}

func TestHijacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, ln := fake(t, Config{})
		polite, deaf := ln.dial(t), ln.dial(t)
		for _, c := range []*client{polite, deaf} {
			c.get("/hijack")
			<-s.entered
		}
		start := time.Now()
		d.Drain(0)
		after(start, 20*time.Second)
		polite.send("x")
		if b := make([]byte, 1); true {
			if _, err := io.ReadFull(polite, b); err != nil || b[0] != 'x' {
				t.Errorf("echo: %q, %v", b, err)
			}
		}
		polite.Close()
		deaf.closedAt(start, DefaultTimeout)
		d.drained(1, 0, 1)
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, before := range []time.Duration{-1, 0, 3 * time.Second} {
			d, s, ln := fake(t, Config{})
			idle, slow := ln.dial(t), ln.dial(t)
			slow.get("/slow")
			<-s.entered
			start := time.Now()
			if before >= 0 {
				d.Drain(0)
				after(start, before)
			}
			d.Stop()
			d.Stop()
			idle.closedAt(start, max(0, before))
			slow.closedAt(start, max(0, before))
			d.drained(0, 1, 1)
		}
	})
}
