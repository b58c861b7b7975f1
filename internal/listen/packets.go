package listen

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Packets is a socket that others have, too, and from which this process may read
// only at certain times: a packet that it takes is lost to the others. Reading
// waits for the begin; End ends it for good. Writing is possible all the time.
//
// What reads through SyscallConn is not held.
type Packets struct {
	net.PacketConn
	open <-chan struct{} // closed at the begin

	mu       sync.Mutex
	deadline time.Time     // of reading
	moved    chan struct{} // closed when deadline or ended changes
	ended    error         // why nothing is read any more
}

func newPackets(c net.PacketConn, open <-chan struct{}) *Packets {
	return &Packets{PacketConn: c, open: open, moved: make(chan struct{})}
}

// ReadFrom waits for the begin, and reads then. It is subject to the deadline all
// the time.
func (p *Packets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-p.open:
	default:
		if err := p.wait(); err != nil {
			return 0, nil, p.error(err)
		}
	}
	n, from, err := p.PacketConn.ReadFrom(b)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended != nil {
			err = p.error(p.ended)
		}
	}
	return n, from, err
}

// wait waits for the begin, the end or the deadline.
func (p *Packets) wait() error {
	for {
		p.mu.Lock()
		deadline, moved, ended := p.deadline, p.moved, p.ended
		p.mu.Unlock()
		if ended != nil {
			return ended
		}
		var late <-chan time.Time
		if !deadline.IsZero() {
			late = time.After(time.Until(deadline))
		}
		select {
		case <-p.open:
			return nil
		case <-moved:
		case <-late:
			return os.ErrDeadlineExceeded
		}
	}
}

func (p *Packets) error(err error) error {
	a := p.LocalAddr()
	return &net.OpError{Op: "read", Net: a.Network(), Source: a, Err: err}
}

// End makes ReadFrom, also one that waits, return an error that wraps reason. A
// packet that has been taken is still returned. The first reason counts.
func (p *Packets) End(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended != nil {
		return
	}
	p.ended = reason
	_ = p.move(time.Unix(1, 0))
}

// move sets the deadline.
func (p *Packets) move(t time.Time) error {
	p.deadline = t
	close(p.moved)
	p.moved = make(chan struct{})
	return p.PacketConn.SetReadDeadline(t)
}

// SetReadDeadline does nothing after End.
func (p *Packets) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended != nil {
		return nil
	}
	return p.move(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (p *Packets) SetDeadline(t time.Time) error {
	if err := p.SetReadDeadline(t); err != nil {
		return err
	}
	return p.SetWriteDeadline(t)
}

// Close closes this process's copy of the socket.
func (p *Packets) Close() error {
	p.End(net.ErrClosed)
	return p.PacketConn.Close()
}

// SyscallConn gives access to the descriptor.
func (p *Packets) SyscallConn() (syscall.RawConn, error) {
	return p.PacketConn.(syscall.Conn).SyscallConn()
}
