package drain

import (
	"net"
	"net/http"
	"testing"
)

// slowListener takes as long as the test likes to return from Accept, and knows no
// deadlines.
type slowListener struct {
	inner   net.Listener
	calls   chan struct{}
	release chan struct{}
}

func (l *slowListener) Accept() (net.Conn, error) {
	l.calls <- struct{}{}
	<-l.release
	return nil, net.ErrClosed
}
func (l *slowListener) Close() error   { return l.inner.Close() }
func (l *slowListener) Addr() net.Addr { return l.inner.Addr() }

// TestQuiet: a drain is quiet when the last call of accept(2) has returned, not before.
func TestQuiet(t *testing.T) {
	t.Parallel()
	ln := &slowListener{listen(t, "tcp"), make(chan struct{}, 1), make(chan struct{})}
	d := serve(t, &http.Server{}, ln, Config{})
	<-ln.calls
	if isClosed(d.Quiet()) {
		t.Error("quiet before the drain")
	}
	d.Drain(0)
	<-d.Draining()
	if isClosed(d.Quiet()) {
		t.Error("quiet while it accepts")
	}
	close(ln.release)
	<-d.Quiet()
	d.drained(0, 0, 0)
}

// TestQuietAtOnce: who accepts nothing is quiet at once.
func TestQuietAtOnce(t *testing.T) {
	t.Parallel()
	held, err := New(&http.Server{}, listen(t, "tcp"), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	held.Hold()
	go func() { _ = held.Serve() }()
	<-held.Serving()
	never, err := New(&http.Server{}, listen(t, "tcp"), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Drainer{held, never} {
		d.Drain(0)
		if !isClosed(d.Quiet()) {
			t.Error("not quiet")
		}
		<-d.Done()
	}
}
