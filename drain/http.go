package drain

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
)

// prepare makes an http.Server tell about its connections, and ask clients to
// close them during a drain.
func (d *Drainer) prepare(srv *http.Server) error {
	if _, ok := srv.Handler.(*handler); ok {
		return fmt.Errorf("%w: another Drainer has this http.Server: make one for each listener, since Shutdown ends all that a server serves", ErrConfig)
	}
	next := srv.ConnState
	srv.ConnState = func(nc net.Conn, s http.ConnState) {
		if c, direct := tracked(nc); c != nil {
			if tc, ok := nc.(*tls.Conn); ok && s == http.StateNew {
				c.secure.Store(tc)
			}
			c.became(s, direct)
		}
		if next != nil {
			if sc, ok := nc.(*secured); ok {
				nc = sc.tls // as it was new
			}
			next(nc, s)
		}
	}
	switch {
	case d.cfg.TLS != nil:
		srv.ConnContext = withBase(srv.ConnContext)
		d.prepareTLS(srv)
	case d.cfg.Queue != nil || d.cfg.Successor != nil:
		srv.ConnContext = withConn(srv.ConnContext)
	}
	h := srv.Handler
	if h == nil {
		h = http.DefaultServeMux
	}
	srv.Handler = &handler{d: d, next: h}
	return nil
}

// handler adds "Connection: close" to answers during a drain. net/http acts on
// it. It is there before the handler runs, so that the ResponseWriter needs no
// wrapping.
type handler struct {
	d    *Drainer
	next http.Handler
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.d.requests.Add(1)
	// In HTTP/2 it would mean a GOAWAY that breaks requests which are on their
	// way. An upgrade's answer has a Connection header of its own.
	if h.d.begun.Load() && r.ProtoMajor < 2 && len(r.Header["Upgrade"]) == 0 {
		if c := connOf(r); c == nil || !h.d.stays(c) {
			w.Header().Set("Connection", "close")
		}
	}
	if r.Method == http.MethodPost && h.d.bare {
		if c := connOf(r); c != nil {
			c.mu.Lock()
			c.post = true
			c.mu.Unlock()
		}
	}
	h.next.ServeHTTP(w, r)
}

// connKey is the request context's key of its conn.
type connKey struct{}

// withConn makes a ConnContext that remembers the conn.
func withConn(next func(context.Context, net.Conn) context.Context) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, nc net.Conn) context.Context {
		if c, _ := tracked(nc); c != nil {
			ctx = context.WithValue(ctx, connKey{}, c)
		}
		if next != nil {
			ctx = next(ctx, nc)
		}
		return ctx
	}
}

// connOf is the request's conn, or nil.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// Pin keeps the connection of a request in this process: it does not move, and is
// closed after the lame-duck time of a drain. It is for handlers that remember
// something of a connection, an authentication for example. It reports whether the
// connection could have moved.
func Pin(r *http.Request) bool {
	c := connOf(r)
	if c == nil || !c.movable {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.never = true
	return true
}
