package drain

import (
	"errors"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/netutil"
)

// shy is a connection whose first byte says that its peer is another one; who asks before that
// waits for it, as behind the PROXY protocol.
type shy struct {
	net.Conn
	first sync.Once
	said  bool
}

func (c *shy) header() {
	c.first.Do(func() { n, _ := c.Conn.Read(make([]byte, 1)); c.said = n == 1 })
}

func (c *shy) Read(p []byte) (int, error) { c.header(); return c.Conn.Read(p) }

func (c *shy) RemoteAddr() net.Addr {
	if c.header(); c.said {
		return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	}
	return c.Conn.RemoteAddr()
}

type shyListener struct{ net.Listener }

func (l shyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &shy{Conn: c}, nil
}

// Connections of a listener that wraps the socket stay, are known by the addresses that it
// gives them, and are not asked for them before.
func TestWrap(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"HTTP", "stream"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, "tcp")
			cfg := Config{Queue: r.queue(), LameDuck: time.Millisecond, Wrap: func(ln net.Listener) net.Listener { return shyListener{ln} }}
			var srv Server = &http.Server{Handler: newSite()}
			if kind == "stream" {
				srv = &Streams{Handler: tally(t, "a")}
			}
			a := serve(t, srv, hold(t, r.ln), cfg)
			silent, c := dial(t, r.ln.Addr()), dial(t, r.ln.Addr())
			c.send("P")
			if kind == "HTTP" {
				c.get("/")
				c.expect("hello", false)
			} else {
				c.send("one\n")
				c.says(`1 "one\n" a`)
			}
			until(t, "both are accepted", func() bool { return a.Served() == 2 })
			peers := map[string]int{}
			for _, o := range a.Open(2) {
				peers[o.Peer]++
			}
			if peers[""] != 1 || peers["192.0.2.1:1"] != 1 {
				t.Errorf("they are said to be %v", peers)
			}
			b := r.start(newSite())
			a.retire()
			if kind == "HTTP" {
				c.closed()
				silent.closed()
				a.drained(0, 2, 0)
			} else {
				c.says(`1 "" goodbye`)
				silent.Close()
				a.drained(2, 0, 0)
			}
			if in, _ := b.Moved(); in != 0 {
				t.Errorf("%d have moved", in)
			}
		})
	}
}

// The last process accepts what is queued through the listener that wraps the socket, too.
func TestWrapQueue(t *testing.T) {
	t.Parallel()
	ln := listen(t, "unix")
	entered, release := make(chan struct{}, 10), make(chan struct{})
	srv := &http.Server{Handler: newSite(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew { // the server accepts no other meanwhile
			entered <- struct{}{}
			<-release
		}
	}}
	d := serve(t, srv, ln, Config{Wrap: func(ln net.Listener) net.Listener { return shyListener{ln} }})
	var clients []*client
	for range 5 {
		c := dial(t, ln.Addr())
		c.send("P")
		c.get("/")
		clients = append(clients, c)
	}
	<-entered
	d.DrainQueue(0)
	for range 100 { // it has begun
		runtime.Gosched()
	}
	if isClosed(d.Quiet()) {
		t.Error("it accepts no more, and something is queued")
	}
	close(release)
	for _, c := range clients {
		c.expect("hello", true)
	}
	<-d.Done()
}

// Who wraps the socket may wait for something else than a connection: a drain does not wait
// for that.
func TestWrapWaits(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	site := newSite()
	d := serve(t, &http.Server{Handler: site}, ln, Config{
		LameDuck: time.Millisecond,
		Wrap:     func(ln net.Listener) net.Listener { return netutil.LimitListener(ln, 1) },
	})
	c := dial(t, ln.Addr())
	c.get("/slow")
	<-site.entered
	until(t, "it wants to accept another one", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.accepting == 1 })
	d.Drain(0)
	<-d.Quiet()
	close(site.release)
	c.expect("slow", false)
	d.drained(0, 1, 0)
	if d.Drainer.ln.err != nil {
		t.Errorf("closing: %v", d.Drainer.ln.err)
	}
}

// What makes no listener, and who closes nothing.
func TestWrapWrong(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	if _, err := New(&http.Server{}, ln, Config{Wrap: func(net.Listener) net.Listener { return nil }}); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
	r := newRelay(t, "tcp")
	d := serve(t, &http.Server{Handler: newSite()}, ln, Config{Successor: r, Wrap: func(ln net.Listener) net.Listener { return idler{ln} }})
	if d.moves() || d.bare {
		t.Error("connections move to the successor")
	}
	c := dial(t, ln.Addr())
	c.get("/")
	c.expect("hello", false)
	d.Drain(0)
	c.get("/")
	c.expect("hello", true)
	<-d.Done()
	if d.Drainer.ln.err != nil {
		t.Errorf("closing: %v", d.Drainer.ln.err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is open: %v", err)
	}
}

type idler struct{ net.Listener }

func (idler) Close() error { return nil }
