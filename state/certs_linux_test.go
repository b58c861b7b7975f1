package state

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// authority signs certificates for 127.0.0.1, whose serial numbers tell them apart.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1_000_000), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	a.pool.AddCert(a.cert)
	return a
}

// issue returns the files of a certificate.
func (a *authority) issue(serial int64) map[string]string {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "127.0.0.1"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(a.t, err)
	return map[string]string{
		"tls.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"tls.key": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})),
	}
}

// client makes one connection, which it keeps if it may.
func (a *authority) client(keep bool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.pool, ServerName: "localhost"}, DisableKeepAlives: !keep,
	}}
}

// handshake asks, and says which worker with which certificate has answered.
func handshake(c *http.Client, addr string) (worker string, serial int64, err error) {
	resp, err := c.Get("https://" + addr + "/")
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, resp.Body)
	return b.String(), resp.TLS.PeerCertificates[0].SerialNumber.Int64(), err
}

// TestCertificates: a certificate is exchanged in all workers of a service, by files that are
// renamed into place and as Kubernetes does it, under load. New handshakes get the new one,
// connections go on, and no request fails.
func TestCertificates(t *testing.T) {
	a := newAuthority(t)
	for _, way := range []struct {
		name   string
		change func(dir string, serial int64) error
	}{
		{"rename", func(dir string, serial int64) error {
			for name, text := range a.issue(serial) {
				if err := put(filepath.Join(dir, name), text); err != nil {
					return err
				}
			}
			return nil
		}},
		{"kubernetes", func(dir string, serial int64) error { return swap(dir, fmt.Sprint(serial), a.issue(serial)) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			dir := t.TempDir()
			serial := int64(1)
			must(t, way.change(dir, serial))
			h := newHost(t, "certs", dir, 2)

			// Strict clients: none fails, and after a worker's new certificate it has no old one.
			stop := make(chan struct{})
			var wg sync.WaitGroup
			end := sync.OnceFunc(func() { close(stop); wg.Wait() })
			t.Cleanup(end)
			for range 2 {
				wg.Go(func() {
					last := map[string]int64{}
					for c := a.client(false); ; {
						select {
						case <-stop:
							return
						default:
						}
						worker, serial, err := handshake(c, h.addr)
						if err != nil || serial < last[worker] {
							t.Errorf("worker %q, serial %d after %d: %v", worker, serial, last[worker], err)
							return
						}
						last[worker] = serial
					}
				})
			}
			old := a.client(true)
			t.Cleanup(old.CloseIdleConnections)
			first, _, err := handshake(old, h.addr)
			must(t, err)
			pids := func() (list []int) {
				for _, w := range h.workers("web") {
					list = append(list, w.Pid)
				}
				return list
			}
			before := pids()
			everywhere := func() {
				t.Helper()
				c := a.client(false)
				good := map[string]bool{}
				until(t, fmt.Sprint("serial ", serial), func() bool {
					worker, got, err := handshake(c, h.addr)
					must(t, err)
					good[worker] = got == serial
					return good["web/1"] && good["web/2"]
				})
			}
			everywhere()
			for range 5 {
				serial++
				must(t, way.change(dir, serial))
				everywhere()
			}
			if worker, got, err := handshake(old, h.addr); err != nil || got != 1 || worker != first {
				t.Errorf("an old connection: worker %q, serial %d, %v", worker, got, err)
			}
			old.CloseIdleConnections()
			if now := pids(); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Errorf("workers %v became %v", before, now)
			}

			// A pair that is none is taken by nobody, nor by those that are started then. (What
			// a drain does to TLS is another matter, so that the strict clients end before.)
			end()
			must(t, put(filepath.Join(dir, "tls.crt"), "no certificate"))
			h.kill("web", syscall.SIGTERM)
			everywhere()
			h.kill("agent", syscall.SIGKILL)
			h.kill("web", syscall.SIGTERM)
			everywhere()
			h.stop()
		})
	}
}

// TestStartWithout: nobody becomes ready without a value, and the reason is told.
func TestStartWithout(t *testing.T) {
	t.Setenv("TEST_WAIT", "2s") // the agent comes up meanwhile
	name := filepath.Join(t.TempDir(), "file")
	h := &host{t: t, cfg: hostConfig(t, "text", name, 1)}
	h.cfg.Trial = true
	set, err := workerset.New(h.cfg)
	must(t, err)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = set.Run() }()
	err = set.Ready(h.ctx())
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("no such file")) {
		t.Errorf("it comes up: %v", err)
	}
	set.Stop()
	<-ended
}
