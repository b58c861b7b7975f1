package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/run"
)

// networks runs a test with every kind of socket.
func networks(t *testing.T, test func(t *testing.T, ln net.Listener)) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) { test(t, listen(t, network)) })
	}
	t.Run("only Close", func(t *testing.T) { test(t, onlyClose{listen(t, "tcp")}) })
}

func TestInFlight(t *testing.T) {
	networks(t, func(t *testing.T, ln net.Listener) {
		s := newSite()
		d := serve(t, &http.Server{Handler: s}, ln, Config{})
		idle, slow := dial(t, ln.Addr()), dial(t, ln.Addr())
		idle.get("/")
		idle.expect("hello", false)
		slow.get("/slow")
		<-s.entered
		d.Drain(0)
		select {
		case <-d.Draining():
		default:
			t.Error("Draining is open")
		}
		idle.get("/")
		idle.expect("hello", true)
		idle.closed()
		close(s.release)
		slow.expect("slow", false)
		slow.get("/")
		slow.expect("hello", true)
		slow.closed()
		d.drained(2, 0, 0)
		if ln.Addr().Network() == "unix" {
			if _, err := os.Stat(ln.Addr().String()); err != nil {
				t.Errorf("the path: %v", err)
			}
		}
	})
}

func TestTricklingUpload(t *testing.T) {
	networks(t, func(t *testing.T, ln net.Listener) {
		s := newSite()
		d := serve(t, &http.Server{Handler: s}, ln, Config{})
		c := dial(t, ln.Addr())
		c.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		<-s.entered
		c.send(strings.Repeat("x", 100))
		d.Drain(0)
		for range 9 {
			c.send(strings.Repeat("x", 100))
		}
		c.expect(strings.Repeat("x", 1000), false)
		c.Close()
		d.drained(1, 0, 0)
	})
}

// No connection: no waiting.
func TestNothingToDrain(t *testing.T) {
	networks(t, func(t *testing.T, ln net.Listener) {
		d := serve(t, new(http.Server), ln, Config{})
		d.Drain(0)
		d.drained(0, 0, 0)
	})
}

func TestHeld(t *testing.T) {
	t.Parallel()
	d, err := New(&http.Server{Handler: newSite()}, listen(t, "tcp"), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	d.Go() // does nothing
	d.Hold()
	d.Hold()
	served := make(chan error)
	go func() { served <- d.Serve() }()
	<-d.Serving()
	c := dial(t, d.ln.Addr())
	c.get("/")
	if open, _ := d.Active(); open != 0 {
		t.Error("a connection was accepted")
	}
	d.Go()
	c.expect("hello", false)
	c.Close()
	d.Drain(0)
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestBeforeServe(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Drainer){
		"Drain": func(d *Drainer) { d.Drain(0) },
		"Stop":  (*Drainer).Stop,
	} {
		d, err := New(&http.Server{}, listen(t, "tcp"), quiet(Config{}))
		if err != nil {
			t.Fatal(err)
		}
		end(d)
		<-d.Done()
		if c, err := net.Dial("tcp", d.ln.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%s: the listener is open", name)
		}
		if err := d.Serve(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.Serve(); err != ErrServed {
			t.Errorf("%s: second Serve: %v", name, err)
		}
	}
}

// Whatever the order is in which they happen, Serve returns.
func TestServeAndDrainAtTheSameTime(t *testing.T) {
	t.Parallel()
	for i := range 200 {
		d, err := New(&http.Server{}, listen(t, "tcp"), quiet(Config{}))
		if err != nil {
			t.Fatal(err)
		}
		execute, interrupt := d.Actor()
		if i%2 == 0 {
			interrupt = func(error) { d.Stop() }
		}
		go interrupt(nil)
		if err := execute(); err != nil {
			t.Fatal(err)
		}
		<-d.Done()
	}
}

func TestServerFails(t *testing.T) {
	t.Parallel()
	s := newSite()
	srv := &http.Server{Handler: s}
	ln := listen(t, "tcp")
	d := serve(t, srv, ln, Config{})
	c := dial(t, ln.Addr())
	c.get("/slow")
	<-s.entered
	ln.Close() // somebody does what he must not
	<-d.Draining()
	close(s.release)
	c.expect("slow", false)
	c.Close()
	if err := <-d.err; !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("Serve: %v", err)
	}
}

func TestServerEndsByItself(t *testing.T) {
	t.Parallel()
	srv := new(http.Server)
	d := serve(t, srv, listen(t, "tcp"), Config{})
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-d.err; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	g := serve(t, &simple{serve: func(ln net.Listener) error { return nil }}, listen(t, "tcp"), Config{})
	if err := <-g.err; !errors.Is(err, errEnded) {
		t.Errorf("Serve: %v", err)
	}
}

// The first server of a group that has drained does not cut its neighbour.
func TestGroup(t *testing.T) {
	t.Parallel()
	var g run.Group
	a, b := newSite(), newSite()
	var clients []*client
	for _, s := range []*site{a, b} {
		ln := listen(t, "tcp")
		g.Add(Actor(&http.Server{Handler: s}, ln, quiet(Config{})))
		c := dial(t, ln.Addr())
		c.get("/slow")
		clients = append(clients, c)
	}
	stop, told := make(chan struct{}), make(chan struct{})
	g.Add(func() error { <-stop; return errors.New("stop") }, func(error) { close(told) }) // the last to be interrupted
	ended := make(chan error)
	go func() { ended <- g.Run() }()
	<-a.entered
	<-b.entered
	close(stop)
	<-told

	close(a.release)
	clients[0].expect("slow", false)
	clients[0].Close()
	// The neighbour still serves: not only the request that is in flight.
	close(b.release)
	clients[1].expect("slow", false)
	clients[1].get("/")
	clients[1].expect("hello", true)
	if err := <-ended; err == nil || err.Error() != "stop" {
		t.Error(err)
	}
}

// simple is a server of any protocol.
type simple struct {
	serve    func(net.Listener) error
	shutdown func(context.Context) error
}

func (s *simple) Serve(ln net.Listener) error { return s.serve(ln) }
func (s *simple) Shutdown(ctx context.Context) error {
	if s.shutdown == nil {
		return nil
	}
	return s.shutdown(ctx)
}

// echo is a server whose Shutdown closes its listener and waits.
func echo() *simple {
	var conns sync.WaitGroup
	var ln net.Listener
	return &simple{
		serve: func(l net.Listener) error {
			ln = l
			for {
				c, err := l.Accept()
				if err != nil {
					return fmt.Errorf("accept: %w", err)
				}
				conns.Go(func() {
					defer c.Close()
					io.Copy(c, c)
				})
			}
		},
		shutdown: func(ctx context.Context) error {
			ln.Close()
			ended := make(chan struct{})
			go func() { conns.Wait(); close(ended) }()
			select {
			case <-ended:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

func TestOtherServer(t *testing.T) {
	networks(t, func(t *testing.T, ln net.Listener) {
		d := serve(t, echo(), ln, Config{})
		c := dial(t, ln.Addr())
		say := func() {
			t.Helper()
			c.send("hello\n")
			if s, err := c.r.ReadString('\n'); s != "hello\n" || err != nil {
				t.Errorf("echo: %q, %v", s, err)
			}
		}
		say()
		d.Drain(0)
		say()
		if open, idle := d.Active(); open != 1 || idle != 0 {
			t.Errorf("%d open, %d idle", open, idle)
		}
		c.Close()
		d.drained(1, 0, 0)
	})
}

func TestOtherServerCut(t *testing.T) {
	for name, end := range map[string]func(d *running){"timeout": func(*running) {}, "stop": func(d *running) { <-time.After(time.Second); d.Stop() }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// It closes what is left when it may wait no longer, as grpc's Stop does.
				var conn net.Conn
				srv := &simple{
					serve: func(ln net.Listener) (err error) {
						if conn, err = ln.Accept(); err == nil {
							_, _ = conn.Read(make([]byte, 1))
						}
						return err
					},
					shutdown: func(ctx context.Context) error {
						<-ctx.Done()
						return conn.Close()
					},
				}
				ln := newPipes()
				d := serve(t, srv, ln, Config{})
				c := ln.dial(t)
				synctest.Wait()
				start := time.Now()
				d.Drain(0)
				end(d)
				want := DefaultTimeout
				if name == "stop" {
					want = time.Second
				}
				c.closedAt(start, want)
				if r := d.drained(0, 0, 1); r.Took > want+time.Millisecond {
					t.Errorf("took %v", r.Took)
				}
			})
		})
	}
}

// A server that closes, once it shuts down, what it has not begun with (grpc-go) gets to
// begin with a connection that it has just accepted. One that does not begin is not waited
// for any longer.
func TestHastyServer(t *testing.T) {
	for name, begins := range map[string]bool{"begins": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, shut := make(chan struct{}), make(chan struct{})
				hasty := &simple{
					serve: func(ln net.Listener) error {
						c, err := ln.Accept()
						if err != nil {
							return err
						}
						defer c.Close()
						select {
						case <-begin:
							if !isClosed(shut) {
								io.WriteString(c, "hello\n")
							}
						case <-shut:
						}
						return nil
					},
					shutdown: func(context.Context) error { close(shut); return nil },
				}
				ln := newPipes()
				d := serve(t, hasty, ln, Config{})
				c := ln.dial(t)
				synctest.Wait()
				start := time.Now()
				d.Drain(0)
				synctest.Wait()
				if begins {
					close(begin)
					if s, err := c.r.ReadString('\n'); s != "hello\n" {
						t.Errorf("%q, %v", s, err)
					}
				}
				c.closed()
				d.drained(1, 0, 0)
				if took := time.Since(start); took > grace {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A server whose Shutdown does nothing, and whose Serve does not end.
func TestStubbornServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		ln := newPipes()
		d := serve(t, &simple{serve: func(ln net.Listener) error { ln.Accept(); <-end; return nil }}, ln, Config{})
		start := time.Now()
		d.Drain(0)
		d.drained(0, 0, 0)
		if took := time.Since(start); took != 2*grace {
			t.Errorf("took %v", took)
		}
		close(end)
	})
}
