package drain

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
)

// This file is how an http.Server is served with TLS.
//
// That is its own ServeTLS, with our connections below those of crypto/tls. In HTTP/2 there
// has to be something above them, too, since a session follows frames. http.Server gives
// such a connection away, by TLSNextProto; and as it serves HTTP/2 on any connection that is
// not of TLS, a second one with the same configuration, the inner one, gets it back with a
// session in between.

// secured is what the inner server gets: a connection of TLS with a session. It does not say
// that it is of TLS, or the server would not look for HTTP/2 on it.
type secured struct {
	net.Conn // the session's
	s        *session
	tls      *tls.Conn
	state    *tls.ConnectionState
	next     http.Handler // the outer server's, for this connection
}

func (c *secured) Read(p []byte) (int, error)  { return c.s.Read(p) }
func (c *secured) Write(p []byte) (int, error) { return c.s.Write(p) }

// NetConn returns the connection of TLS.
func (c *secured) NetConn() net.Conn { return c.tls }

// securedKey is the context's key of the secured connection.
type securedKey struct{}

// prepareTLS has an http.Server use TLS, and give what is HTTP/2 to the inner one.
func (d *Drainer) prepareTLS(srv *http.Server) {
	srv.TLSConfig = d.cfg.TLS
	theirs := srv.TLSNextProto["h2"]
	switch {
	case theirs != nil: // an implementation of the user's
		srv.TLSNextProto = maps.Clone(srv.TLSNextProto)
		srv.TLSNextProto["h2"] = func(srv *http.Server, tc *tls.Conn, h http.Handler) {
			if c, _ := tracked(tc); c != nil {
				c.h2.Store(true)
			}
			theirs(srv, tc, h)
		}
	case speaksHTTP2(srv):
		next := maps.Clone(srv.TLSNextProto)
		if next == nil {
			next = make(map[string]func(*http.Server, *tls.Conn, http.Handler))
		}
		d.secured = &deliveries{addr: d.ln.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
		next["h2"] = d.serveSecured
		srv.TLSNextProto = next
	}
}

// withBase makes a ConnContext that remembers the context for the inner server.
func withBase(next func(context.Context, net.Conn) context.Context) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, nc net.Conn) context.Context {
		if next != nil {
			ctx = next(ctx, nc)
		}
		if c, _ := tracked(nc); c != nil {
			c.base = ctx
		}
		return ctx
	}
}

// speaksHTTP2 tells whether a server does, on TLS: http.Server says how one can disable it.
func speaksHTTP2(srv *http.Server) bool {
	if srv.Protocols != nil {
		return srv.Protocols.HTTP2()
	}
	return srv.TLSNextProto == nil
}

// serveSecured has the inner server serve a connection. The outer one closes it afterwards.
func (d *Drainer) serveSecured(srv *http.Server, tc *tls.Conn, h http.Handler) {
	c, _ := tracked(tc)
	state := tc.ConnectionState()
	if c == nil || !goodEnough(state, srv.HTTP2) {
		return
	}
	s := newSession(c, tc, len(preface))
	c.speaks(s)
	select {
	case d.secured.conns <- &secured{Conn: tc, s: s, tls: tc, state: &state, next: h}:
		<-s.gone
	case <-d.secured.closed:
	}
}

// goodEnough tells whether HTTP/2 may be spoken (RFC 9113, section 9.2), as net/http sees it.
func goodEnough(state tls.ConnectionState, cfg *http.HTTP2Config) bool {
	if state.Version != tls.VersionTLS12 || cfg != nil && cfg.PermitProhibitedCipherSuites {
		return state.Version >= tls.VersionTLS12
	}
	switch state.CipherSuite { // those of crypto/tls that the appendix A does not prohibit
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return false
}

// serveOn has the server serve a listener's connections.
func (d *Drainer) serveOn(ln net.Listener) error {
	if d.cfg.TLS != nil {
		return d.srv.(*http.Server).ServeTLS(ln, "", "")
	}
	return d.srv.Serve(ln)
}

// inner is the server of HTTP/2 on TLS. A nil one does nothing.
type inner struct {
	srv    *http.Server
	served <-chan struct{}
}

// serveInner begins to serve what is HTTP/2 on TLS.
func (d *Drainer) serveInner() *inner {
	if d.secured == nil {
		return nil
	}
	i := &inner{srv: innerServer(d.srv.(*http.Server))}
	i.served = inBackground(func() { _ = i.srv.Serve(d.secured) })
	return i
}

func (i *inner) shutdown(ctx context.Context) error {
	if i == nil {
		return nil
	}
	err := i.srv.Shutdown(ctx)
	<-i.served
	return err
}

// innerServer makes a server with the configuration of the outer one.
func innerServer(srv *http.Server) *http.Server {
	inner := &http.Server{
		Handler:                      http.HandlerFunc(serveOuter),
		DisableGeneralOptionsHandler: true,
		ReadTimeout:                  srv.ReadTimeout,
		ReadHeaderTimeout:            srv.ReadHeaderTimeout,
		WriteTimeout:                 srv.WriteTimeout,
		IdleTimeout:                  srv.IdleTimeout,
		MaxHeaderBytes:               srv.MaxHeaderBytes,
		ErrorLog:                     srv.ErrorLog,
		HTTP2:                        srv.HTTP2,
		Protocols:                    new(http.Protocols),
		ConnState: func(nc net.Conn, s http.ConnState) {
			if s != http.StateNew && s != http.StateClosed { // the outer one says so
				srv.ConnState(nc, s)
			}
		},
		ConnContext: func(_ context.Context, nc net.Conn) context.Context {
			c, _ := tracked(nc)
			return context.WithValue(c.base, securedKey{}, nc)
		},
	}
	inner.Protocols.SetUnencryptedHTTP2(true)
	return inner
}

func serveOuter(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(securedKey{}).(*secured)
	r.TLS = c.state
	c.next.ServeHTTP(w, r)
}
