package tickets

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestHTTP: net/http clones its config, and adds to it.
func TestHTTP(t *testing.T) {
	s := newSite(t)
	f := newFile(t)
	var addrs []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(rw, "hello")
		})}
		srv.TLSConfig = share(t, f, Config{}).TLS("web", s.cfg)
		done := make(chan error, 1)
		go func() { done <- srv.ServeTLS(ln, "", "") }()
		t.Cleanup(func() {
			srv.Close()
			<-done
		})
		addrs = append(addrs, ln.Addr().String())
	}
	for proto := 1; proto <= 2; proto++ {
		tr := &http.Transport{TLSClientConfig: s.client(tls.VersionTLS13), ForceAttemptHTTP2: proto == 2}
		for i := range 4 {
			resp, err := (&http.Client{Transport: tr}).Get("https://" + addrs[i%2])
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(b) != "hello" || resp.ProtoMajor != proto {
				t.Fatalf("%s, %q, %v", resp.Proto, b, err)
			}
			if resp.TLS.DidResume != (i > 0) {
				t.Errorf("%s, connection %d: resumed %v", resp.Proto, i+1, resp.TLS.DidResume)
			}
			tr.CloseIdleConnections()
		}
	}
}
