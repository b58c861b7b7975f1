package upgrader

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// TestListenerWaits: before the commit nothing is accepted, and a drain or a close
// ends the wait.
func TestListenerWaits(t *testing.T) {
	open := func() (*listener, chan struct{}, chan error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		decided, accepted := make(chan struct{}), make(chan error, 1)
		l := newListener(ln, decided)
		t.Cleanup(func() { l.Close() })
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			conn, err := l.Accept()
			if err == nil {
				conn.Close()
			}
			accepted <- err
		}()
		return l, decided, accepted
	}

	l, decided, accepted := open()
	// One that waits in the queue is not taken: it is there for the listener below.
	if c, err := l.Listener.Accept(); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	select {
	case err := <-accepted:
		t.Fatalf("accepted before the commit: %v", err)
	default:
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	close(decided)
	if err := <-accepted; err != nil {
		t.Errorf("after the commit: %v", err)
	}

	l, _, accepted = open()
	if err := l.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a deadline: %v", err)
	}

	l, _, accepted = open()
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
