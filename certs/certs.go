// Package certs has TLS certificates that are exchanged while the server runs.
//
//	pair, err := certs.Load("/etc/shop/cert.pem", "/etc/shop/key.pem", nil)
//	cfg := &tls.Config{GetCertificate: pair.GetCertificate}
//
// The files are looked at again when somebody connects, at most once a second, and when
// Reload is called, for instance by worker.Worker.OnReopen. What can't be used changes
// nothing: the certificate before it stays. Whoever exchanges files should do so by rename;
// but while only one of the two is new they do not fit, which is waited out.
package certs

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// every is how long nobody looks at the files again.
const every = time.Second

// Pair is a certificate and its key, as two files have them. Its methods may be called
// from any goroutine.
type Pair struct {
	certFile, keyFile string
	log               *slog.Logger
	clock             func() time.Time

	now atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // held by who looks at the files
	looked  time.Time
	used    text // what now was made of
	refused text // what could not be used
	told    bool // and has been logged
}

// text is what is in the files.
type text struct {
	cert, key []byte
	err       error // why they can't be read
}

func (t text) equal(u text) bool {
	return fmt.Sprint(t.err) == fmt.Sprint(u.err) && bytes.Equal(t.cert, u.cert) && bytes.Equal(t.key, u.key)
}

// Load reads a certificate, with the chain that belongs to it, and its private key from two
// files in PEM format, which may be the same one. The error names the file that can't be
// used. An expired certificate is used, with a warning. log gets what happens later; nil is
// slog.Default().
func Load(certFile, keyFile string, log *slog.Logger) (*Pair, error) {
	if log == nil {
		log = slog.Default()
	}
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log, clock: time.Now}
	if err := p.Reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// GetCertificate is for tls.Config.GetCertificate. It never fails, and never waits for the
// file system twice in a second.
func (p *Pair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if p.mu.TryLock() { // else somebody is looking
		if now := p.clock(); now.Sub(p.looked).Abs() >= every {
			p.looked = now
			p.look()
		}
		p.mu.Unlock()
	}
	return p.now.Load(), nil
}

// Reload looks at the files at once. The error says why they can't be used; then the
// certificate stays what it was.
func (p *Pair) Reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = p.clock()
	t := p.read()
	if t.equal(p.used) {
		return nil
	}
	err := p.use(t)
	if err != nil {
		p.refused, p.told = t, true // by whoever called
	}
	return err
}

// look is Reload for somebody who has something else to do. What can't be used is logged
// when it has been there twice: before that, somebody may be about to write the other file.
func (p *Pair) look() {
	t := p.read()
	if t.equal(p.used) {
		p.refused, p.told = text{}, false
		return
	}
	again := t.equal(p.refused)
	if again && p.told {
		return
	}
	if err := p.use(t); err != nil {
		p.refused, p.told = t, again
		if again {
			p.log.Error("the certificate can't be used: the one before stays", "error", err)
		}
	}
}

func (p *Pair) read() (t text) {
	if t.cert, t.err = os.ReadFile(p.certFile); t.err == nil {
		t.key, t.err = os.ReadFile(p.keyFile)
	}
	return t
}

// use makes t the certificate.
func (p *Pair) use(t text) error {
	if t.err != nil {
		return fmt.Errorf("certificate: %w", t.err)
	}
	c, err := tls.X509KeyPair(t.cert, t.key)
	if err != nil {
		return fmt.Errorf("certificate %s with the key %s: %w", p.certFile, p.keyFile, err)
	}
	first := p.now.Load() == nil
	p.used, p.refused, p.told = t, text{}, false
	p.now.Store(&c)
	if now := p.clock(); now.After(c.Leaf.NotAfter) || now.Before(c.Leaf.NotBefore) {
		p.log.Warn("the certificate is not valid now", "file", p.certFile, "not_before", c.Leaf.NotBefore, "not_after", c.Leaf.NotAfter)
	}
	if !first {
		p.log.Info("another certificate is used from now on", "file", p.certFile, "serial", c.Leaf.SerialNumber.Text(16), "not_after", c.Leaf.NotAfter)
	}
	return nil
}
