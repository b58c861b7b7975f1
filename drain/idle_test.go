package drain

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
)

// pair returns a registered connection over a real socket and its client.
func pair(t *testing.T, network string) (*Drainer, *conn, *client) {
	t.Helper()
	ln := listen(t, network)
	d, err := New(new(http.Server), ln, quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Drain(0) })
	c := dial(t, ln.Addr())
	nc, err := d.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	tc, _ := tracked(nc)
	return d, tc, c
}

// An idle connection in whose socket a request waits is not closed.
func TestReadable(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		d, c, peer := pair(t, network)
		d.begin(0, false)
		peer.send("GET")
		until(t, "the bytes arrive", func() bool { return readable(c.Conn) })
		d.closeIdle(0)
		b := make([]byte, 10)
		if n, err := c.Read(b); err != nil || string(b[:n]) != "GET" {
			t.Fatalf("%s: read %q, %v", network, b[:n], err)
		}
		d.closeIdle(0) // they belong to a request now
		peer.send("x")
		if n, err := c.Read(b); err != nil || string(b[:n]) != "x" {
			t.Fatalf("%s: read %q, %v", network, b[:n], err)
		}
		c.became(http.StateActive, true)
		c.became(http.StateIdle, true)
		if left := d.closeIdle(0); left != 0 {
			t.Errorf("%s: next look after %v", network, left)
		}
		peer.closed()
		if got := c.phase.Load(); got != taken {
			t.Errorf("%s: closed in phase %d: what is read now would be served", network, got)
		}
		if r := d.Report(); r.ClosedIdle != 1 || r.Finished != 0 {
			t.Errorf("%s: %+v", network, r)
		}
	}
}

// A peer that has gone leaves nothing to read.
func TestNotReadable(t *testing.T) {
	_, c, peer := pair(t, "tcp")
	peer.Close()
	c.Conn.Read(make([]byte, 1))
	if readable(c.Conn) {
		t.Error("the end of a stream counts as a request")
	}
	c.Conn.Close()
	if readable(c.Conn) {
		t.Error("a closed connection counts as a request")
	}
}

// Bytes that are read when the drain has decided to close are never a request:
// it would be served, and its answer lost.
func TestTooLate(t *testing.T) {
	_, c, peer := pair(t, "tcp")
	if !c.take() {
		t.Fatal("not taken")
	}
	peer.send("GET / HTTP/1.1\r\n")
	if n, err := c.Read(make([]byte, 100)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if c.take() {
		t.Error("taken twice")
	}
}

func TestPhases(t *testing.T) {
	for _, test := range []struct {
		what   string
		events []func(*conn)
		want   uint32
	}{
		{"pipelined: held by the server when it became idle", []func(*conn){read("GET"), state(http.StateActive), state(http.StateIdle), state(http.StateActive)}, busy},
		{"hijacked", []func(*conn){read("GET"), state(http.StateActive), state(http.StateHijacked), read("x")}, hijacked},
		{"read before it is active", []func(*conn){state(http.StateNew), read("G")}, busy},
		{"HTTP/2, a frame without a request", []func(*conn){read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), state(http.StateActive), state(http.StateIdle), read("ping")}, idle},
		{"HTTP/2, a request", []func(*conn){read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), state(http.StateIdle), state(http.StateActive), read("data")}, busy},
		{"taken", []func(*conn){func(c *conn) { c.take() }, state(http.StateActive), state(http.StateIdle), state(http.StateHijacked)}, taken},
	} {
		d, err := New(new(http.Server), newPipes(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := wrap(d, nil)
		for _, e := range test.events {
			e(c)
		}
		if got := c.phase.Load(); got != test.want {
			t.Errorf("%s: phase %d, want %d", test.what, got, test.want)
		}
	}
}

func read(s string) func(*conn) {
	return func(c *conn) {
		if c.arrived() {
			c.sniff([]byte(s))
		}
	}
}
func state(s http.ConnState) func(*conn) { return func(c *conn) { c.became(s, true) } }

// A connection that accept(2) returns after everything was cut is cut, too.
func TestAcceptedAfterCut(t *testing.T) {
	d, err := New(new(http.Server), newPipes(), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	d.enter()
	d.begin(0, false)
	d.cut()
	if d.leave(there) != nil {
		t.Error("it is served")
	}
	if _, err := here.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v", err)
	}
	if r := d.Report(); r.Cut != 1 {
		t.Errorf("%+v", r)
	}
}

// A server that is draining finds Accept blocked, not failing.
func TestAcceptBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(new(http.Server), newPipes(), quiet(Config{}))
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan error, 2)
		accept := func() {
			_, err := d.ln.Accept()
			accepted <- err
		}
		go accept()
		synctest.Wait()
		d.begin(0, false)
		d.ln.wake()
		go accept()
		synctest.Wait()
		if len(accepted) != 0 {
			t.Errorf("Accept: %v", <-accepted)
		}
		d.ln.Close()
		for range 2 {
			if err := <-accepted; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v", err)
			}
		}
	})
}
