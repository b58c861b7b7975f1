package drain

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/moving"
)

// This file is about connections that wait in the queue.

// queued is the client of a connection that is in the queue.
func (r *relay) queued() *client {
	r.t.Helper()
	c := dial(r.t, r.ln.Addr())
	nc := must(r.ln.Accept())
	control(r.t, nc, func(fd int) error { return r.queue().Send(fd, moving.Message{}) })
	nc.Close()
	return c
}

// Who gives to a queue that nobody takes from does not lose what is there: it serves it
// itself, and gives it away when somebody has come.
func TestNobodyTakes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 20} { // fewer than the queue has room for, and more
		t.Run(strconv.Itoa(n), func(t *testing.T) { t.Parallel(); nobodyTakes(t, n) })
	}
}

func nobodyTakes(t *testing.T, n int) {
	r := newRelay(t, "tcp")
	a := r.start(newSite())
	var clients []*client
	for range n {
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("hello", false)
		clients = append(clients, c)
	}
	a.waits("")
	a.retire()
	until(t, "some come back", func() bool { in, _ := a.Moved(); return in > 0 })
	for range 3 {
		for _, c := range clients {
			c.get("/")
			c.expect("hello", false)
		}
	}
	b := r.start(newSite())
	a.drained(0, 0, 0)
	for _, c := range clients {
		c.get("/")
		c.expect("hello", false)
	}
	if open, _ := b.Active(); open != len(clients) {
		t.Errorf("%d are open", open)
	}
}

// Without anybody who takes them, connections wait in the queue, and then with the
// sender, who goes on serving them.
func TestFullQueueMoves(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	for _, fd := range r.pair {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
			t.Fatal(err)
		}
	}
	a := r.start(newSite())
	var clients []*client
	for range 100 {
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("hello", false)
		clients = append(clients, c)
	}
	a.waits("")
	a.retire()
	q := r.queue()
	until(t, "the queue is full", func() bool {
		room, _ := q.AwaitRoom(time.Now().Add(time.Millisecond))
		return !room
	})
	_, queued := a.Moved()
	if queued == 0 || queued == len(clients) {
		t.Fatalf("%d are queued", queued)
	}
	for _, c := range clients {
		c.get("/")
	}
	b := r.start(newSite())
	for _, c := range clients {
		c.expect("hello", false)
	}
	a.drained(0, 0, 0)
	until(t, "all have come", func() bool { in, _ := b.Moved(); return in == len(clients) })
}

// When the whole service stops, nothing is queued, and what is queued is served.
func TestStopTakesRest(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	r.conf.LameDuck = time.Millisecond
	c := r.queued()
	c.get("/")
	// The next one stops before it has ever run.
	b := must(New(&http.Server{Handler: newSite()}, hold(t, r.ln), quiet(Config{Queue: r.queue(), LameDuck: time.Millisecond})))
	b.Hold()
	served := make(chan error, 1)
	go func() { served <- b.Serve() }()
	<-b.Serving()
	b.Move(Take)
	b.Drain(0)
	if got, _ := c.answer(); got != "hello" { // perhaps before the drain had begun
		t.Errorf("answer %q", got)
	}
	c.closed()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
