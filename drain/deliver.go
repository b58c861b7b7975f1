package drain

import (
	"errors"
	"net"
	"sync"
)

// ErrNotDelivered is wrapped when a connection can't be given to the server.
var ErrNotDelivered = errors.New("drain: connection not delivered")

// Deliver gives the server a connection that came by another way than its listener,
// also while accepting is held. The Drainer owns it then: it is served and drained
// like any other, but not counted as accepted. With an error, the connection stays
// the caller's: once a drain has begun, before Serve, and for servers other than
// *http.Server.
func (d *Drainer) Deliver(nc net.Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.http:
		return errors.Join(ErrNotDelivered, errors.New("the server is no *http.Server"))
	case !d.started || d.begun.Load():
		return errors.Join(ErrNotDelivered, errors.New("nothing is served, or not any more"))
	}
	inner, served := d.deliveriesLocked()
	c, wrapped := wrap(d, nc)
	select {
	case inner.conns <- wrapped:
	case <-served:
		return errors.Join(ErrNotDelivered, errors.New("the server has ended"))
	}
	d.conns[c] = struct{}{}
	return nil
}

// deliveries has the server serve what comes by another way, and returns that, and a
// channel that is closed when the server has ended.
func (d *Drainer) deliveries() (*deliveries, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deliveriesLocked()
}

func (d *Drainer) deliveriesLocked() (*deliveries, <-chan struct{}) {
	if d.inner == nil {
		d.inner = &deliveries{addr: d.ln.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
		// http.Server serves any number of listeners at a time.
		d.innerServed = inBackground(func() { _ = d.serveOn(d.inner) })
	}
	return d.inner, d.innerServed
}

// endDeliveries closes what Deliver has begun.
func (d *Drainer) endDeliveries() {
	d.mu.Lock()
	inner, served := d.inner, d.innerServed
	d.mu.Unlock()
	if inner != nil {
		inner.Close()
		<-served
	}
}

// deliveries is the listener of what was delivered.
type deliveries struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *deliveries) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *deliveries) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *deliveries) Addr() net.Addr { return l.addr }
