//lint:file-ignore SA1019 net/http's client of HTTP/2 sometimes sends no body after a GOAWAY, x/net's does

package handover_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/handover-go/handover/worker"
)

// http2App echoes what is posted: HTTP/2 in plaintext on the socket http, and with TLS on
// https. TEST_SHUTDOWN: as net/http drains by itself.
func http2App(ctx context.Context, w *worker.Worker) error {
	h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		rw.Header().Set("X-Secure", strconv.FormatBool(r.TLS != nil))
		_, _ = rw.Write(b)
	})
	cert, err := tls.LoadX509KeyPair(os.Getenv("TEST_CERT"), os.Getenv("TEST_CERT"))
	if err != nil {
		return err
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	plain, secure := &http.Server{Handler: h, Protocols: new(http.Protocols)}, &http.Server{Handler: h}
	plain.Protocols.SetUnencryptedHTTP2(true)
	if os.Getenv("TEST_SHUTDOWN") != "" {
		secure.TLSConfig = cfg
		w.Go(func(ctx context.Context) error { return w.Serve(ctx, "http", shutdownOnly{plain, plain.Serve}) })
		return w.Serve(ctx, "https", shutdownOnly{secure, func(ln net.Listener) error { return secure.ServeTLS(ln, "", "") }})
	}
	w.Go(func(ctx context.Context) error { return w.Serve(ctx, "http", plain) })
	return w.ServeTLS(ctx, "https", secure, cfg)
}

// shutdownOnly is a server of which nobody knows that it is an http.Server.
type shutdownOnly struct {
	srv   *http.Server
	serve func(net.Listener) error
}

func (s shutdownOnly) Serve(ln net.Listener) error        { return s.serve(ln) }
func (s shutdownOnly) Shutdown(ctx context.Context) error { return s.srv.Shutdown(ctx) }

// newCertificate writes a key and its certificate into one file.
func newCertificate(t testing.TB) (file string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: []string{"service"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	var b bytes.Buffer
	for name, der := range map[string][]byte{"CERTIFICATE": der, "PRIVATE KEY": private} {
		_ = pem.Encode(&b, &pem.Block{Type: name, Bytes: der})
	}
	roots.AppendCertsFromPEM(b.Bytes())
	file = filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, roots
}

// posters post bodies that can't be sent again, one after the other, each on a connection of
// its own. They forgive nothing.
type posters struct {
	stop             context.CancelFunc
	done             sync.WaitGroup
	requests, failed atomic.Int64
	mu               sync.Mutex
	errs             map[string]int
}

func startPosters(t testing.TB, n int, addr string, cfg *tls.Config) *posters {
	ctx, stop := context.WithCancel(t.Context())
	p := &posters{stop: stop, errs: map[string]int{}}
	for range n {
		p.done.Go(func() { p.run(ctx, addr, cfg) })
	}
	return p
}

func (p *posters) run(ctx context.Context, addr string, cfg *tls.Config) {
	tr := &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			if cfg != nil {
				return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
	}
	defer tr.CloseIdleConnections()
	for ctx.Err() == nil {
		p.requests.Add(1)
		if err := post(tr, cfg != nil); err != nil {
			p.failed.Add(1)
			p.mu.Lock()
			p.errs[err.Error()]++
			p.mu.Unlock()
		}
	}
}

func post(tr http.RoundTripper, secure bool) error {
	body := bytes.Repeat([]byte{byte('a' + mathrand.N(26))}, 1+mathrand.N(4000))
	req, err := http.NewRequest("POST", "https://service/", struct{ io.Reader }{bytes.NewReader(body)})
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.Header.Get("X-Secure") != strconv.FormatBool(secure):
		return fmt.Errorf("%s %s", resp.Status, resp.Proto)
	case !bytes.Equal(b, body):
		return fmt.Errorf("posted %d bytes, %d came back", len(body), len(b))
	}
	return nil
}

// wait waits for so many requests more.
func (p *posters) wait(t testing.TB, n int64) {
	t.Helper()
	n += p.requests.Load()
	until(t, time.Minute, func() string {
		if left := n - p.requests.Load(); left > 0 {
			return fmt.Sprint(left, " requests are missing")
		}
		return ""
	})
}

// check stops them. None has failed, and each has been served.
func (p *posters) check(t testing.TB, what string) {
	t.Helper()
	p.stop()
	p.done.Wait()
	t.Logf("%s: %d requests, %d failed", what, p.requests.Load(), p.failed.Load())
	if p.requests.Load() < 1000 {
		t.Errorf("%s: %d requests prove nothing", what, p.requests.Load())
	}
	named := 0
	for err, n := range p.errs {
		if named++; named <= 5 {
			t.Errorf("%s: %d times: %s", what, n, err)
		}
	}
}

// TestHTTP2OverUpgrades: no request of HTTP/2 fails, although none can be sent again, in
// upgrades and when workers end. TEST_HTTP2_UPGRADES=40 go test -run TestHTTP2OverUpgrades -v
// is the whole trial, and TEST_SHUTDOWN=1 what http.Server's own Shutdown does in it.
func TestHTTP2OverUpgrades(t *testing.T) {
	t.Parallel()
	upgrades, _ := strconv.Atoi(os.Getenv("TEST_HTTP2_UPGRADES"))
	if upgrades == 0 {
		upgrades = 4
	}
	cert, roots := newCertificate(t)
	s := startService(t, 2, "TEST_APP=http2", "TEST_CERT="+cert, "TEST_LISTEN=http=tcp://127.0.0.1:0,https=tcp://127.0.0.1:0")
	started := s.await(has("msg=started"))
	addr, secureAddr := match(started, `\bhttp=tcp://([^\s,"]+)`), match(started, `\bhttps=tcp://([^\s,"]+)`)
	for what, start := range map[string]func() *posters{
		"h2c": func() *posters { return startPosters(t, 32, addr, nil) },
		"TLS": func() *posters {
			return startPosters(t, 32, secureAddr, &tls.Config{RootCAs: roots, ServerName: "service", NextProtos: []string{"h2"}})
		},
	} {
		p := start()
		for range upgrades {
			p.wait(t, 1000)
			s.upgrade()
		}
		p.wait(t, 1000)
		from, pid := s.mark(), s.workers()[0]
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.exits(from, fmt.Sprint(pid))
		p.check(t, what)
	}
	s.stop()
}
