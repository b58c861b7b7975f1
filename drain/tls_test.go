//lint:file-ignore SA1019 net/http's client of HTTP/2 sometimes sends no body after a GOAWAY, x/net's does

package drain

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// certificate is one of a server that nobody knows.
var certificate = sync.OnceValue(func() tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"x"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func serverTLS(testing.TB) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate()}}
}

func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "x", NextProtos: protocols}
}

// An h2Transporter speaks HTTP/2 on as many connections as are needed.
type h2Transporter interface {
	http.RoundTripper
	CloseIdleConnections()
}

// h2Clients makes one. That of net/http sometimes sends no body after a GOAWAY.
func h2Clients(addr net.Addr, secure bool) h2Transporter {
	return &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			var d net.Dialer
			nc, err := d.DialContext(ctx, addr.Network(), addr.String())
			if err == nil && secure {
				nc = tls.Client(nc, clientTLS("h2"))
			}
			return nc, err
		},
	}
}

// secureDial returns a client of HTTP/1.1 whose handshake is done.
func secureDial(t *testing.T, nc net.Conn) *client {
	t.Helper()
	tc := tls.Client(nc, clientTLS("http/1.1"))
	if err := tc.Handshake(); err != nil {
		t.Error(err)
	}
	return newClient(t, tc)
}

// HTTP/1.1 on TLS is drained as everything that can't move.
func TestTLSLameDuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ln := newSite(), newPipes()
		d := serve(t, &http.Server{Handler: s}, ln, Config{TLS: serverTLS(t)})
		bare, fresh, idle, used, slow := ln.dial(t), secureDial(t, ln.dial(t)), secureDial(t, ln.dial(t)), secureDial(t, ln.dial(t)), secureDial(t, ln.dial(t))
		for _, c := range []*client{idle, used} {
			c.get("/")
			c.expect("hello", false)
		}
		slow.get("/slow")
		<-s.entered
		synctest.Wait()
		if open, idle := d.Active(); open != 5 || idle != 4 {
			t.Errorf("%d open, %d idle", open, idle)
		}
		start := time.Now()
		d.Drain(0)
		after(start, 3*time.Second)
		used.get("/")
		used.expect("hello", true)
		used.closed()
		close(s.release)
		slow.expect("slow", false)
		var wg sync.WaitGroup
		for c, want := range map[*client]time.Duration{bare: DefaultLameDuck, fresh: DefaultLameDuck, idle: DefaultLameDuck, slow: 3*time.Second + DefaultLameDuck} {
			wg.Go(func() {
				io.Copy(io.Discard, c)
				if got := time.Since(start); got < want || got > want+20*time.Millisecond {
					t.Errorf("closed after %v, want %v", got, want)
				}
			})
		}
		wg.Wait()
		d.drained(1, 4, 0)
	})
}

// A handshake that is under way when the drain begins is finished, and the request behind
// it served. Who stalls in it has the lame-duck time.
func TestTLSHandshakeDuringDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		d := serve(t, &http.Server{Handler: newSite()}, ln, Config{TLS: serverTLS(t)})
		late, stalled := ln.dial(t), ln.dial(t)
		synctest.Wait()
		start := time.Now()
		d.Drain(0)
		after(start, 4*time.Second)
		stalled.send("\x16\x03\x01") // a part of a record
		c := secureDial(t, late)
		after(start, 8*time.Second)
		c.get("/")
		c.expect("hello", true)
		c.closed()
		stalled.closedAt(start, 4*time.Second+DefaultLameDuck)
		d.drained(1, 1, 0)
	})
}

// hooks are those of a server, and what its handler sees.
type hooks struct {
	mu     sync.Mutex
	states []string
}

func (h *hooks) server() *http.Server {
	srv := &http.Server{
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, h, fmt.Sprintf("%T", nc))
		},
		ConnState: func(nc net.Conn, s http.ConnState) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.states = append(h.states, fmt.Sprintf("%T %v", nc, s))
		},
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		_, of := r.Context().Value(http.ServerContextKey).(*http.Server)
		_, push := w.(http.Pusher)
		fmt.Fprintf(w, "%s %s %v local %t server %t peer %t push %t, ", r.Proto, r.Context().Value(h), r.Host, local, of, r.RemoteAddr != "", push)
		if r.TLS != nil {
			fmt.Fprintf(w, "TLS %t %q %q", r.TLS.HandshakeComplete, r.TLS.NegotiatedProtocol, r.TLS.ServerName)
		}
	})
	return srv
}

// The hooks and the handlers of a server see with a Drainer what they see without.
func TestTLSHooks(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2", "http/1.1"} {
		ask := func(addr net.Addr) string {
			tr := &http.Transport{TLSClientConfig: clientTLS(), ForceAttemptHTTP2: protocol == "h2"}
			defer tr.CloseIdleConnections()
			var got []string
			for _, what := range []string{"GET /", "OPTIONS *", "GET /"} {
				method, path, _ := strings.Cut(what, " ")
				req := must(http.NewRequest(method, "https://"+addr.String(), nil))
				req.URL.Opaque, req.Host = path, "x"
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				got = append(got, fmt.Sprint(resp.StatusCode, string(b), err))
			}
			return strings.Join(got, "\n")
		}
		var states [2][]string
		var answers [2]string
		for i := range 2 {
			var h hooks
			srv, ln := h.server(), listen(t, "tcp")
			if i == 0 {
				srv.TLSConfig = serverTLS(t)
				served := inBackground(func() { srv.ServeTLS(ln, "", "") })
				answers[0] = ask(ln.Addr())
				srv.Shutdown(t.Context())
				<-served
			} else {
				d := serve(t, srv, ln, Config{TLS: serverTLS(t)})
				answers[1] = ask(ln.Addr())
				d.Drain(0)
				<-d.Done()
			}
			until(t, "StateClosed", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				states[i] = slices.Clone(h.states)
				return strings.HasSuffix(h.states[len(h.states)-1], "closed")
			})
		}
		if answers[0] != answers[1] || !strings.Contains(answers[0], "TLS true") {
			t.Errorf("%s: answers\n%s\nwant\n%s", protocol, answers[1], answers[0])
		}
		if !slices.Equal(states[0], states[1]) {
			t.Errorf("%s: states %q, want %q", protocol, states[1], states[0])
		}
	}
}

// negotiated is the protocol that a server agrees to.
func negotiated(t *testing.T, srv *http.Server, cfg *tls.Config, protocols ...string) string {
	t.Helper()
	d := serve(t, srv, listen(t, "tcp"), Config{TLS: cfg})
	c, err := tls.Dial("tcp", d.ln.Addr().String(), clientTLS(protocols...))
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	return c.ConnectionState().NegotiatedProtocol
}

func TestTLSProtocols(t *testing.T) {
	t.Parallel()
	only1, only2 := new(http.Protocols), new(http.Protocols)
	only1.SetHTTP1(true)
	only2.SetHTTP2(true)
	disabled := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	byClient := serverTLS(t)
	byClient.NextProtos = []string{"h2"}
	for _, test := range []struct {
		what string
		srv  *http.Server
		cfg  *tls.Config
		want string
	}{
		{"default", &http.Server{}, serverTLS(t), "h2"},
		{"only HTTP/1", &http.Server{Protocols: only1}, serverTLS(t), "http/1.1"},
		{"only HTTP/2", &http.Server{Protocols: only2}, serverTLS(t), "h2"},
		{"HTTP/2 disabled", &http.Server{TLSNextProto: disabled}, serverTLS(t), "http/1.1"},
		{"GetConfigForClient", &http.Server{}, &tls.Config{
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return byClient, nil },
		}, "h2"},
		{"another server's TLSConfig", &http.Server{TLSConfig: &tls.Config{NextProtos: []string{"x"}}}, serverTLS(t), "h2"},
	} {
		if got := negotiated(t, test.srv, test.cfg, "x", "h2", "http/1.1"); got != test.want {
			t.Errorf("%s: %s, want %s", test.what, got, test.want)
		}
	}
	if len(disabled) > 0 {
		t.Error("the user's map has changed")
	}
}

// An implementation of HTTP/2 that the user has chosen stays, and has the lame-duck time.
func TestTLSOtherHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		srv := &http.Server{Handler: newSite()}
		if err := http2.ConfigureServer(srv, nil); err != nil {
			t.Fatal(err)
		}
		d := serve(t, srv, ln, Config{TLS: serverTLS(t)})
		c := newH2Client(t, tls.Client(ln.dial(t), clientTLS("h2")))
		c.request(1, "/", true)
		c.answer(1, "hello")
		start := time.Now()
		d.Drain(0)
		if f, err := c.ReadFrame(); err == nil {
			t.Errorf("%v", f)
		}
		if took := time.Since(start).Truncate(time.Second); took != DefaultLameDuck {
			t.Errorf("closed after %v", took)
		}
		d.drained(0, 1, 0)
	})
}

func TestTLSBadConfig(t *testing.T) {
	for what, f := range map[string]func() (*Drainer, error){
		"no certificate": func() (*Drainer, error) { return New(new(http.Server), newPipes(), Config{TLS: new(tls.Config)}) },
		"no http.Server": func() (*Drainer, error) { return New(echo(), newPipes(), Config{TLS: serverTLS(t)}) },
	} {
		if _, err := f(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// HTTP/2 asks for more than TLS does.
func TestTLSTooWeak(t *testing.T) {
	t.Parallel()
	weak := serverTLS(t)
	weak.MinVersion, weak.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	weak.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	permitted := &http.HTTP2Config{PermitProhibitedCipherSuites: true}
	for _, test := range []struct {
		srv *http.Server
		ok  bool
	}{{&http.Server{Handler: newSite()}, false}, {&http.Server{Handler: newSite(), HTTP2: permitted}, true}} {
		d := serve(t, test.srv, listen(t, "tcp"), Config{TLS: weak})
		tr := h2Clients(d.ln.Addr(), true)
		req := must(http.NewRequest("GET", "https://x/", nil))
		resp, err := tr.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != test.ok {
			t.Errorf("permitted %t: %v", test.ok, err)
		}
		tr.CloseIdleConnections()
	}
}

// What is delivered is of TLS as well.
func TestTLSDeliver(t *testing.T) {
	t.Parallel()
	d := serve(t, &http.Server{Handler: newSite()}, listen(t, "tcp"), Config{TLS: serverTLS(t)})
	other := listen(t, "tcp")
	defer other.Close()
	nc := dial(t, other.Addr())
	if err := d.Deliver(must(other.Accept())); err != nil {
		t.Fatal(err)
	}
	c := newH2Client(t, tls.Client(nc, clientTLS("h2")))
	c.request(1, "/", true)
	c.answer(1, "hello")
	d.Drain(0)
	c.WritePing(true, c.leaving())
	c.goAway(1)
	c.ends()
	c.Close()
	d.drained(1, 0, 0)
}
