package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A session is the connections of an HTTP2 or GRPC client, one after the other. Its requests
// share it.
type session struct {
	client *client
	kind   Kind
	idle   func(Failure) // told of a connection that has ended with nothing lost; may be nil

	mu       sync.Mutex
	conn     *h2conn // that of the next request; nil: it makes one
	closed   bool
	watchers sync.WaitGroup
}

// An h2conn is a connection. What is not set at its beginning is guarded by its session.
type h2conn struct {
	cc   *http.ClientConn
	wire *wire
	made time.Time

	n, inFlight int       // requests, and those under way
	free        time.Time // since when none is
	last        Failure   // where and who of the last request
	failed      bool      // one of them has
	told        bool
}

// maxTries is how many connections may end before anything is sent on them. One on which the
// requests of others were sent does not count: there may be many that wait for their turn.
const maxTries = 3

// stream is one request. It is sent once: on another connection only if that which there was
// has ended, or its server has said that it leaves, before a byte of it was sent.
func (x *exchange) stream(s *session, deadline time.Time) (Class, string) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	read := x.read
	if x.failure.Kind == GRPC {
		read = x.readCall
	}
	for tries := 0; ; {
		req, err := x.request(ctx)
		if err != nil {
			return Other, "making the request: " + err.Error()
		}
		c, class, detail := s.take(&x.failure, deadline)
		if class != 0 {
			return class, detail
		}
		resp, err := c.cc.RoundTrip(req)
		if err != nil && tries < maxTries && c.unsent(err, sent.Load(), x.failure.Nth) {
			s.give(c, x.failure, false)
			sent.Store(false)
			if !c.wire.used() {
				tries++
			}
			continue
		}
		if err != nil {
			class, detail = c.classify(err, false, "waiting for the answer")
		} else {
			class, detail = read(resp, func(err error, _, within string) (Class, string) { return c.classify(err, true, within) })
			resp.Body.Close()
		}
		s.give(c, x.failure, class != 0)
		return class, detail
	}
}

// request makes what is sent on a stream.
func (x *exchange) request(ctx context.Context) (*http.Request, error) {
	k := x.failure.Kind
	scheme, method, body := "http://", "GET", io.Reader(nil)
	if x.cfg.TLS != nil {
		scheme = "https://"
	}
	if k == GRPC {
		method, body = "POST", emptyMessage()
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+x.targets[k].host+x.cfg.path(k), body)
	if err != nil {
		return nil, err
	}
	if x.cfg.Header != nil {
		req.Header = x.cfg.Header.Clone()
	}
	req.Header.Set("X-Request-Id", x.failure.ID)
	if k == GRPC {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
	}
	return req, nil
}

// take returns a connection for one request, whose failure says then what there was before.
func (s *session) take(f *Failure, deadline time.Time) (*h2conn, Class, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.wire.isOver() {
		s.conn = nil
	}
	if s.conn == nil {
		conn, class, detail := s.client.connect(s.kind, deadline)
		if class != 0 {
			return nil, class, detail
		}
		c, err := newH2Conn(conn, deadline)
		if err != nil {
			conn.Close()
			return nil, Body, "beginning HTTP/2: " + err.Error()
		}
		s.conn = c
		s.watchers.Go(func() {
			<-c.wire.over
			s.mu.Lock()
			defer s.mu.Unlock()
			s.settle(c)
		})
	}
	c := s.conn
	c.n++
	f.Nth, f.Connected = c.n, c.made
	f.Local, f.Remote = c.wire.LocalAddr().String(), c.wire.RemoteAddr().String()
	if c.n > 1 && c.inFlight == 0 {
		f.Think = f.Began.Sub(c.free)
	}
	c.inFlight++
	return c, 0, ""
}

func newH2Conn(conn net.Conn, deadline time.Time) (*h2conn, error) {
	w := newWire(conn, true)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true) // TLS, if any, is below
	t := &http.Transport{
		Protocols:          &protocols,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return w, nil },
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	cc, err := t.NewClientConn(ctx, "http", "server:80")
	return &h2conn{cc: cc, wire: w, made: time.Now()}, err
}

// give says that a request has ended.
func (s *session) give(c *h2conn, f Failure, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.inFlight--
	c.last, c.free, c.failed = f, time.Now(), c.failed || failed
	s.settle(c)
}

// settle ends a connection that is over, when its last request has ended. The caller holds
// mu.
func (s *session) settle(c *h2conn) {
	if c.inFlight > 0 || c.told || !c.wire.isOver() {
		return
	}
	c.told = true
	c.cc.Close()
	if c.failed || s.closed || s.idle == nil || c.n == 0 {
		return
	}
	f := c.last
	f.Began, f.Nth, f.Think = c.free, c.n, time.Since(c.free)
	switch _, away, err := c.wire.seen(); {
	case away:
		f.Detail = "the server leaves (GOAWAY)"
	case err != nil:
		f.Detail = "idle: " + err.Error()
	default:
		f.Detail = "idle, and there came what is not HTTP/2"
	}
	s.idle(f)
}

// close ends the session, when its requests have ended.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	if s.conn != nil {
		s.conn.cc.Close()
	}
	s.mu.Unlock()
	s.watchers.Wait()
}

// unsent tells whether a request that has failed should not have been sent, or was not.
func (c *h2conn) unsent(err error, sent bool, nth int) bool {
	if sent {
		return isGone(err) && c.wire.late()
	}
	_, away, _ := c.wire.seen()
	return away || nth > 1 && c.wire.isOver()
}

// isGone tells whether an error says that the server has not looked at a stream.
func isGone(err error) bool {
	return strings.Contains(err.Error(), "received Server's graceful shutdown GOAWAY")
}

// classify says what an error of net/http's means. Its types are not exported, so that there
// is a look at their words; what the connection has seen says more.
func (c *h2conn) classify(err error, begun bool, where string) (Class, string) {
	detail := where + ": " + err.Error()
	_, away, lost := c.wire.seen()
	switch text := err.Error(); {
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return Timeout, detail
	case strings.Contains(text, "REFUSED_STREAM"), away && isGone(err):
		return GoneAway, detail
	case lost != nil:
		return ioClass(lost, begun), where + ": " + lost.Error()
	case !strings.HasPrefix(text, "stream error:"):
		return Body, detail
	case begun:
		return Cut, detail
	}
	return Reset, detail // of the stream
}
