package drain

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// control runs f with the descriptor of a socket.
func control(t testing.TB, c any, f func(fd int) error) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

// hold returns a listener with another descriptor of the same socket, as another
// process would have it.
func hold(t testing.TB, ln net.Listener) net.Listener {
	t.Helper()
	var dup int
	control(t, ln, func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	f := os.NewFile(uintptr(dup), "listener")
	defer f.Close()
	held, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() })
	return held
}

func nonblocking(t testing.TB, ln net.Listener) (on bool) {
	t.Helper()
	control(t, ln, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		on = flags&unix.O_NONBLOCK != 0
		return err
	})
	return on
}

// What is in the kernel's queue stays there for another holder of the socket,
// and what comes during and after the drain, too.
func TestQueue(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		for _, held := range []bool{false, true} {
			ln := listen(t, network)
			other := hold(t, ln)
			d, err := New(&http.Server{Handler: newSite()}, ln, quiet(Config{}))
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			queued := 1
			if held {
				d.Hold()
			}
			go func() { served <- d.Serve() }()
			<-d.Serving()
			accepted := dial(t, ln.Addr())
			accepted.get("/")
			if held {
				queued++ // it was not accepted
			} else {
				accepted.expect("hello", false)
			}
			d.Drain(0)
			until(t, "no call of accept(2) is under way", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.accepting == 0
			})
			during := dial(t, ln.Addr())
			during.get("/")
			if !held {
				accepted.Close()
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			if !nonblocking(t, other) {
				t.Errorf("%s: O_NONBLOCK was cleared", network)
			}

			after := dial(t, other.Addr())
			after.get("/")
			next := serve(t, &http.Server{Handler: newSite()}, other, Config{})
			during.expect("hello", false)
			after.expect("hello", false)
			if held {
				accepted.expect("hello", false)
			}
			if open, _ := next.Active(); open != queued+1 {
				t.Errorf("%s, held %t: %d connections, want %d", network, held, open, queued+1)
			}
			next.Stop()
			<-next.Done()
		}
	}
}

// Servers take turns at one socket, and no client notices.
func TestTakeTurns(t *testing.T) {
	t.Parallel()
	first := listen(t, "tcp")
	held := hold(t, first)
	answered := make(chan struct{}, 1<<20)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", held.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				if b, err := io.ReadAll(c); err != nil || len(b) < 5 || string(b[len(b)-5:]) != "hello" {
					t.Errorf("answer %q, %v", b, err)
				}
				c.Close()
				answered <- struct{}{}
			}
		})
	}
	d := serve(t, &http.Server{Handler: newSite()}, first, Config{})
	finished := 0 // during drains
	for range 20 {
		for range 20 {
			<-answered
		}
		next := serve(t, &http.Server{Handler: newSite()}, hold(t, held), Config{})
		d.Drain(0)
		if err := <-d.err; err != nil {
			t.Error(err)
		}
		r := d.Report()
		finished += r.Finished
		if r.Cut != 0 || r.ClosedIdle != 0 {
			t.Errorf("%+v", r)
		}
		d = next
	}
	close(stop)
	clients.Wait()
	t.Logf("%d connections finished during drains", finished)
}

// Not parallel: it counts the descriptors of the process.
func TestNoDescriptorLeaks(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	run := func() {
		s := newSite()
		d := serve(t, &http.Server{Handler: s}, listen(t, "tcp"), Config{})
		idle, slow := dial(t, d.ln.Addr()), dial(t, d.ln.Addr())
		idle.get("/")
		idle.expect("hello", false)
		slow.get("/slow")
		<-s.entered
		until(t, "one is idle", func() bool { _, idle := d.Active(); return idle == 1 })
		d.Drain(0)
		d.Stop()
		d.drained(0, 1, 1)
		idle.Close()
		slow.Close()
	}
	run() // opens what the runtime keeps
	before := count()
	for range 10 {
		run()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// When nobody accepts afterwards, what is queued is accepted first.
func TestDrainQueue(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix", "tcp, by the successor"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			network, _, last := strings.Cut(network, ",")
			ln := listen(t, network)
			cfg := Config{}
			if last {
				cfg.Successor = newRelay(t, network)
			}
			entered, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			srv := &http.Server{Handler: newSite(), ConnState: func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew { // the server accepts no other meanwhile
					once.Do(func() { close(entered); <-release })
				}
			}}
			d := serve(t, srv, ln, cfg)
			var clients []*client
			for i := range 10 {
				c := dial(t, ln.Addr())
				c.get("/")
				clients = append(clients, c)
				if i == 0 {
					<-entered
				}
			}
			if last { // there is none
				d.Drain(0)
			} else {
				d.DrainQueue(0)
			}
			close(release)
			for _, c := range clients {
				c.expect("hello", true)
			}
			if err := <-d.err; err != nil {
				t.Error(err)
			}
			if n := d.Served(); n != len(clients) {
				t.Errorf("%d accepted", n)
			}
		})
	}
}

// A relay is a successor that has not come.
func (r *relay) QueueOf(net.Listener) (give, take int, err error) { return r.pair[0], r.pair[1], nil }
func (r *relay) Replaced() <-chan struct{}                        { return nil }
func (r *relay) Decided() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
