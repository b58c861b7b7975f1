package listen

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// reading is a Packets that somebody reads from, with one packet in its queue.
func reading(t *testing.T) (p *Packets, open chan struct{}, read chan error) {
	t.Helper()
	fd := bindOrSkip(t, Spec{"a", "udp", "127.0.0.1:0"})
	open = make(chan struct{})
	p, err := PacketConn(fd, open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if _, err := p.WriteTo([]byte("first"), p.LocalAddr()); err != nil {
		t.Fatal(err) // writing waits for nothing
	}
	read = make(chan error, 1)
	go func() { read <- readOne(p, "first") }()
	return p, open, read
}

func readOne(p net.PacketConn, want string) error {
	b := make([]byte, 100)
	n, from, err := p.ReadFrom(b)
	if err == nil && (string(b[:n]) != want || from.String() != p.LocalAddr().String()) {
		err = errors.New("read something else")
	}
	return err
}

func TestPackets(t *testing.T) {
	why := errors.New("why")
	past := time.Now().Add(-time.Second)
	for what, c := range map[string]struct {
		do   func(*Packets) error
		want error
	}{
		"end":           {func(p *Packets) error { p.End(why); p.End(os.ErrExist); return nil }, why},
		"close":         {(*Packets).Close, net.ErrClosed},
		"read deadline": {func(p *Packets) error { return p.SetReadDeadline(past) }, os.ErrDeadlineExceeded},
		"deadline":      {func(p *Packets) error { return p.SetDeadline(past) }, os.ErrDeadlineExceeded},
		"one to come":   {func(p *Packets) error { return p.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"many": {func(p *Packets) error {
			p.SetReadDeadline(time.Now().Add(time.Hour))
			p.SetReadDeadline(time.Time{})
			return p.SetReadDeadline(past)
		}, os.ErrDeadlineExceeded},
	} {
		t.Run(what+" while it waits", func(t *testing.T) {
			p, _, read := reading(t)
			if err := c.do(p); err != nil {
				t.Fatal(err)
			}
			var op *net.OpError
			if err := <-read; !errors.Is(err, c.want) || !errors.As(err, &op) || op.Op != "read" {
				t.Errorf("%v", err)
			}
		})
		t.Run(what+" while it reads", func(t *testing.T) {
			p, open, read := reading(t)
			close(open)
			if err := <-read; err != nil {
				t.Error(err)
			}
			go func() { read <- readOne(p, "") }()
			if err := c.do(p); err != nil {
				t.Fatal(err)
			}
			if err := <-read; !errors.Is(err, c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Before the begin nothing is taken; after the end neither, whatever deadline is
// set; a deadline that has passed can be taken back.
func TestPacketsBegin(t *testing.T) {
	p, open, read := reading(t)
	// The packet is there for the socket below.
	if err := readOne(p.PacketConn, "first"); err != nil {
		t.Fatal(err)
	}
	if err := p.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("before the begin: %v", err)
	}
	if err := p.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { read <- readOne(p, "second") }()
	close(open)
	if _, err := p.WriteTo([]byte("second"), p.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Errorf("after the begin: %v", err)
	}
	if _, err := p.WriteTo([]byte("third"), p.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	why := errors.New("why")
	p.End(why)
	if err := p.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := readOne(p, "third"); !errors.Is(err, why) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := p.WriteTo([]byte("fourth"), p.LocalAddr()); err != nil {
		t.Errorf("writing after the end: %v", err)
	}
	if rc, err := p.SyscallConn(); err != nil || rc == nil {
		t.Error(err)
	}
}
