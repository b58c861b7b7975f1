package load

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

// All kinds together, in the clear and by TLS, with a unix socket beside.
func TestMixed(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := echoServer(t, secure, 0, nil)
			cfg.Unix = filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", cfg.Unix)
			if err != nil {
				t.Fatal(err)
			}
			srv := http.Server{Handler: right{}}
			served := make(chan struct{})
			go func() { defer close(served); srv.Serve(ln) }()
			t.Cleanup(func() { srv.Close(); <-served })
			cfg.Addrs = map[Kind]string{TCP: lineServer(t, "tcp", nil), UDP: packetServer(t, nil)}
			cfg.Clients, cfg.Rate, cfg.WaitReady = map[Kind]int{}, 20, time.Minute
			for _, k := range Kinds() {
				cfg.Clients[k] = 1
			}
			r := runEach(t, cfg)
			if err := r.Check(); err != nil || len(r.ByKind) != int(numKinds) {
				t.Errorf("%v\n%v", err, r)
			}
		})
	}
}

func TestUntrusted(t *testing.T) {
	t.Parallel()
	cfg, _ := http2Server(t, true, right{}.ServeHTTP)
	cfg.TLS = &tls.Config{}
	cfg.Clients, cfg.MaxRequests = map[Kind]int{New: 1, HTTP2: 1, WebSocket: 1, GRPC: 1}, 8
	if r := run(t, cfg); r.Failures[Handshake] != 8 || !strings.Contains(r.Check().Error(), "certificate") {
		t.Error(r)
	}
	cfg.TLS.InsecureSkipVerify = true
	cfg.Clients = map[Kind]int{New: 1, HTTP2: 1, GRPC: 1}
	if r := run(t, cfg); r.Check() != nil {
		t.Error(r)
	}
}

// A server that ends a connection instead of a handshake, does not speak TLS at all, or knows
// nothing of HTTP/2.
func TestTLSFails(t *testing.T) {
	t.Parallel()
	certified := httptest.NewUnstartedServer(right{})
	certified.Config.ErrorLog = quiet
	certified.StartTLS()
	t.Cleanup(certified.Close)
	for name, tc := range map[string]struct {
		do   func(net.Conn)
		want Class
	}{
		"closes": {func(c net.Conn) {
			io.ReadFull(c, make([]byte, 5))
			c.(*net.TCPConn).CloseWrite()
			stall(c.(*net.TCPConn))
		}, EOF},
		"resets": {func(c net.Conn) { io.ReadFull(c, make([]byte, 5)); resets(c.(*net.TCPConn)) }, Reset},
		"no TLS": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); stall(c.(*net.TCPConn)) }, Handshake},
		"no ALPN": {func(c net.Conn) {
			tls.Server(c, &tls.Config{Certificates: certified.TLS.Certificates}).Handshake()
			stall(c.(*net.TCPConn))
		}, Handshake},
		"no HTTP/2": {nil, Handshake},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Addr: certified.Listener.Addr().String(), Clients: map[Kind]int{HTTP2: 1}, MaxRequests: 2,
				TLS: &tls.Config{InsecureSkipVerify: true}}
			if tc.do != nil {
				ln := listen(t)
				serveBytes(t, ln, tc.do)
				cfg.Addr = ln.Addr().String()
			}
			r := run(t, cfg)
			if r.Failures[tc.want] != 2 || r.Accounted() != nil {
				t.Errorf("want %v:\n%v", tc.want, r)
			}
		})
	}
}
