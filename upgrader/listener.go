package upgrader

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// listener is what Listen returns. In a process that an upgrade started it accepts
// from the commit on: what it took before that would be lost with it if the upgrade
// failed.
type listener struct {
	net.Listener
	name    string
	decided <-chan struct{}

	once   sync.Once
	ended  chan struct{} // closed by Close, and by a deadline that has passed
	reason error
}

func newListener(ln net.Listener, decided <-chan struct{}) *listener {
	return &listener{Listener: ln, decided: decided, ended: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.decided:
		return l.Listener.Accept()
	default:
	}
	select {
	case <-l.decided:
		return l.Listener.Accept()
	case <-l.ended:
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: l.reason}
	}
}

func (l *listener) end(reason error) {
	l.once.Do(func() {
		l.reason = reason
		close(l.ended)
	})
}

func (l *listener) Close() error {
	l.end(net.ErrClosed)
	return l.Listener.Close()
}

// SetDeadline is that of the listener below; one that has passed ends the wait for
// the commit, too, for good. That is how package drain wakes an Accept.
func (l *listener) SetDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		l.end(os.ErrDeadlineExceeded)
	}
	return l.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
}

func (l *listener) SyscallConn() (syscall.RawConn, error) {
	return l.Listener.(syscall.Conn).SyscallConn()
}
