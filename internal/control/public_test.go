//go:build linux

package control

import (
	"errors"
	"net"
	"testing"
)

// TestQueued: so many at a time, who has gone leaves room, and who waits is ended by Close.
func TestQueued(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", socket(t))
	if err != nil {
		t.Fatal(err)
	}
	l := queue(ln, 2)
	conns, ended := make(chan net.Conn), make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			conns <- c
		}
	}()
	for range 4 {
		c, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-conns, <-conns
	if n := len(l.(*queued).free); n != 2 {
		t.Errorf("%d are counted", n)
	}
	first.Close()
	first.Close() // is no other one's
	third := <-conns
	l.Close()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	second.Close()
	third.Close()
	if n := len(l.(*queued).free); n != 0 {
		t.Errorf("%d are counted when all have gone", n)
	}
}
