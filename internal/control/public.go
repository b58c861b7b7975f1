package control

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// This file is for whoever comes over the network, who may only ask.

const (
	// publicConns is how many may be connected at a time. The others wait in the socket's
	// queue: the parent needs its descriptors for its workers.
	publicConns = 64
	// publicHeader bounds a request, in bytes: it has no body.
	publicHeader = 16 << 10
	publicTime   = 10 * time.Second // to say what one wants
	publicAnswer = 30 * time.Second // to read the answer
	publicIdle   = 2 * time.Minute  // more than it takes until the next scrape
	// publicGrace is how long the end of this process may be held up by them.
	publicGrace = 100 * time.Millisecond
)

// NewPublicServer answers everybody on an address of the network: what is asked with GET,
// and nothing that acts.
func NewPublicServer(s Service, log *slog.Logger) *Server {
	srv := newServer(s, "status address", log)
	srv.http.ReadHeaderTimeout, srv.http.ReadTimeout = publicTime, publicTime
	srv.http.WriteTimeout, srv.http.IdleTimeout = publicAnswer, publicIdle
	srv.http.MaxHeaderBytes = publicHeader
	srv.bound, srv.grace = func(ln net.Listener) net.Listener { return queue(ln, publicConns) }, publicGrace
	return srv
}

// queued is a listener that accepts only so many at a time: the others wait.
type queued struct {
	net.Listener
	free chan struct{} // has room for each that may be connected
	done chan struct{} // closed by Close
	once sync.Once
}

func queue(ln net.Listener, n int) net.Listener {
	return &queued{Listener: ln, free: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *queued) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &queuedConn{Conn: c, free: l.free}, nil
}

func (l *queued) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type queuedConn struct {
	net.Conn
	free chan struct{}
	once sync.Once
}

func (c *queuedConn) Close() error {
	c.once.Do(func() { <-c.free })
	return c.Conn.Close()
}
