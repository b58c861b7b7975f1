package drain

import (
	"net"
	"sync"
	"time"
)

// listener is what the server gets. During a drain its Accept blocks, rather than
// fails, until the server has closed it or the drain has ended.
type listener struct {
	net.Listener              // from which the connections come
	socket       net.Listener // the same, unless it wraps this one
	family       int          // of addresses, see familyOf
	d            *Drainer
	serving      sync.Once
	stopping     sync.Once
	closing      sync.Once
	closed       chan struct{}
	err          error // of closing
}

func (l *listener) Accept() (net.Conn, error) {
	l.serving.Do(func() { close(l.d.serving) })
	for l.d.enter() {
		nc, err := l.Listener.Accept()
		if err != nil {
			nc = nil
		}
		if c := l.d.leave(nc); c != nil {
			return c, nil
		}
		if l.d.begun.Load() {
			break
		}
		if l.d.cfg.MaxConns == 0 || !timedOut(err) { // else enter waits for room
			return nil, err
		}
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close closes this process's descriptor of the socket. Others that hold it go on
// (unlike after shutdown(2)).
func (l *listener) Close() error {
	l.closing.Do(func() {
		l.end()
		if l.d.cfg.Wrap != nil { // which may have left it open
			l.socket.Close()
		}
		close(l.closed)
	})
	return l.err
}

func (l *listener) end() { l.stopping.Do(func() { l.err = l.Listener.Close() }) }

// stop ends accepting for good. What wraps the socket may wait for something else than a
// connection.
func (l *listener) stop() {
	if !l.wake() || l.d.cfg.Wrap != nil {
		l.end()
	}
}

// wake ends calls of accept(2) and lets no other begin. A deadline is known to this
// process only, whereas the socket and its flags are shared. A connection that
// accept(2) has returned is still returned by Accept. It returns false if the
// listener can't do that.
func (l *listener) wake() bool {
	t, ok := l.socket.(interface{ SetDeadline(time.Time) error })
	return ok && t.SetDeadline(time.Unix(1, 0)) == nil
}
