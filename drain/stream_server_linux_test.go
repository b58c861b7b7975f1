package drain

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TLS goes on after a handler was told, and what does not want to be told is not.
func TestStreamTLS(t *testing.T) {
	t.Parallel()
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned %t", pinned), func(t *testing.T) {
			t.Parallel()
			site := httptest.NewTLSServer(nil) // has a certificate
			cert := site.TLS.Certificates[0]
			site.Close()
			r := newRelay(t, "tcp")
			var told atomic.Int64
			a := r.streams(func(ctx context.Context, c *Stream) {
				if pinned {
					c.Pin()
				}
				tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				defer tc.Close()
				for rd := bufio.NewReader(tc); ; {
					line, err := rd.ReadString('\n')
					if errors.Is(err, ErrLeave) {
						told.Add(1)
						continue
					}
					if err != nil {
						return
					}
					io.WriteString(tc, line)
				}
			})
			nc := dial(t, r.ln.Addr())
			c := newClient(t, tls.Client(nc.Conn, &tls.Config{InsecureSkipVerify: true}))
			c.send("one\n")
			c.says("one")
			r.streams(tally(t, "b"))
			a.retire()
			if !pinned {
				until(t, "it is told", func() bool { return told.Load() > 0 })
			}
			for range 3 {
				c.send("two\n")
				c.says("two")
			}
			c.Close()
			a.drained(1, 0, 0)
			if n := told.Load(); n > 0 == pinned {
				t.Errorf("told %d times", n)
			}
		})
	}
}

// A panic ends its own connection.
func TestStreamPanic(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	a := r.streams(func(ctx context.Context, c *Stream) {
		b := make([]byte, 1)
		if must(c.Read(b)); b[0] == 'p' {
			panic("no luck")
		}
		io.WriteString(c, "fine\n")
	})
	bad, good := dial(t, r.ln.Addr()), dial(t, r.ln.Addr())
	bad.send("p")
	bad.closed()
	good.send("x")
	good.says("fine")
	good.closed()
	a.Drain(0)
	<-a.Done()
}

// Servers of another kind leave what is queued alone, and it comes back.
func TestKindsOfServers(t *testing.T) {
	t.Parallel()
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		a := r.streams(tally(t, "a"))
		c := dial(t, r.ln.Addr())
		c.send("one\n")
		c.says(`1 "one\n" a`)
		b := r.start(newSite())
		a.retire()
		until(t, "it comes back", func() bool { in, _ := a.Moved(); return in > 0 })
		c.send("two\n")
		c.says(`2 "two\n" a`)
		if in, _ := b.Moved(); in != 0 {
			t.Errorf("%d were taken for HTTP", in)
		}
		b.Drain(0)
		<-b.Done()
		r.streams(tally(t, "c"))
		a.drained(0, 0, 0)
		c.send("three\n")
		c.says(`3 "three\n" c`)
	})
	t.Run("HTTP", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		a := r.start(newSite())
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("hello", false)
		a.waits("")
		b := r.streams(tally(t, "b"))
		a.retire()
		until(t, "it comes back", func() bool { in, _ := a.Moved(); return in > 0 })
		c.get("/")
		c.expect("hello", false)
		if in, _ := b.Moved(); in != 0 {
			t.Errorf("%d were taken for streams", in)
		}
		r.start(newSite())
		a.drained(0, 0, 0)
		c.get("/")
		c.expect("hello", false)
	})
	// One whose giver has died does not keep others from who serves them.
	t.Run("orphan", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		orphan := r.queued()
		a := r.streams(tally(t, "a"))
		c := dial(t, r.ln.Addr())
		c.send("one\n")
		c.says(`1 "one\n" a`)
		r.streams(tally(t, "b"))
		a.retire()
		a.drained(0, 0, 0)
		c.send("two\n")
		if got, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(got, `2 "two\n" `) {
			t.Errorf("%q, %v", got, err)
		}
		r.start(newSite())
		orphan.get("/")
		orphan.expect("hello", false)
	})
}

// Streams belong to one Drainer.
func TestStreamsConfig(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	defer ln.Close()
	if _, err := New(&Streams{}, ln, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("no handler: %v", err)
	}
	s := &Streams{Handler: tally(t, "a")}
	if err := s.Serve(ln); !errors.Is(err, ErrConfig) {
		t.Errorf("without a Drainer: %v", err)
	}
	d := must(New(s, ln, quiet(Config{})))
	if _, err := New(s, ln, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("a second Drainer: %v", err)
	}
	d.Drain(0)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("nothing to shut down: %v", err)
	}
	if err := d.Deliver(nil); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("delivered: %v", err)
	}
}
