package certs

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/handover-go/handover/internal/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a directory with a certificate, a clock, and what was logged.
type site struct {
	t         *testing.T
	ca        *testca.CA
	cert, key string
	now       time.Time
	log       bytes.Buffer
	pair      *Pair
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, ca: testca.New(t), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), now: time.Now()}
	s.issue(1, time.Hour)
	return s
}

// begin loads what is there, and looks no more until the clock goes on.
func (s *site) begin() {
	s.t.Helper()
	pair, err := Load(s.cert, s.key, slog.New(slog.NewTextHandler(&s.log, nil)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.pair, pair.clock, pair.looked = pair, func() time.Time { return s.now }, s.now
}

func (s *site) issue(serial int64, good time.Duration) {
	s.t.Helper()
	cert, key := s.ca.Issue(serial, good)
	s.write(s.cert, cert)
	s.write(s.key, key)
}

func (s *site) write(name string, b []byte) {
	s.t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// has says which certificate a client gets who comes so much later.
func (s *site) has(later time.Duration, serial int64) {
	s.t.Helper()
	s.now = s.now.Add(later)
	c, err := s.pair.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil || c.Leaf.SerialNumber.Int64() != serial {
		s.t.Errorf("certificate %v, %v, and not %d", c.Leaf.SerialNumber, err, serial)
	}
}

// said checks what was logged since it was asked for the last time: parts of each line.
func (s *site) said(want ...string) {
	s.t.Helper()
	got := strings.Split(strings.TrimSuffix(s.log.String(), "\n"), "\n")
	s.log.Reset()
	if len(want) == 0 && got[0] == "" && len(got) == 1 {
		return
	}
	ok := len(got) == len(want)
	for i := range want {
		ok = ok && strings.Contains(got[i], want[i])
	}
	if !ok {
		s.t.Errorf("said %q, and not %q", got, want)
	}
}

const (
	changed = `level=INFO msg="another certificate is used from now on"`
	refused = `level=ERROR msg="the certificate can't be used: the one before stays"`
	invalid = `level=WARN msg="the certificate is not valid now"`
)

func TestExchange(t *testing.T) {
	s := newSite(t)
	s.begin()
	s.has(0, 1)
	s.issue(2, time.Hour)
	s.has(every-1, 1)
	s.said()
	s.has(1, 2)
	s.said(changed)
	s.has(every, 2)
	s.said()

	s.issue(3, time.Hour)
	if err := s.pair.Reload(); err != nil {
		t.Fatal(err)
	}
	s.has(0, 3)
	s.said(changed + ` file=` + s.cert + ` serial=3 not_after=`)
	s.has(-time.Hour, 3) // the clock is set back
	s.issue(4, time.Hour)
	s.has(every, 4)
	s.said(changed)
}

// TestUnusable: what can't be used changes nothing, and is told once.
func TestUnusable(t *testing.T) {
	other := func(s *site) []byte { _, key := s.ca.Issue(99, time.Hour); return key }
	for name, c := range map[string]struct {
		spoil func(s *site)
		says  string
		is    error
	}{
		"another key":    {func(s *site) { s.write(s.key, other(s)) }, "private key does not match public key", nil},
		"no certificate": {func(s *site) { os.Remove(s.cert) }, "cert.pem: no such file", fs.ErrNotExist},
		"no key":         {func(s *site) { os.Remove(s.key) }, "key.pem: no such file", fs.ErrNotExist},
		"empty":          {func(s *site) { s.write(s.cert, nil) }, "cert.pem with the key ", nil},
		"half":           {func(s *site) { b, _ := os.ReadFile(s.cert); s.write(s.cert, b[:len(b)/2]) }, "failed to find any PEM data", nil},
		"garbage":        {func(s *site) { s.write(s.key, []byte("garbage")) }, "key.pem: tls: failed to find any PEM data", nil},
		"a directory":    {func(s *site) { os.Remove(s.key); os.Mkdir(s.key, 0o700) }, "key.pem: is a directory", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.begin()
			c.spoil(s)
			s.has(every, 1)
			s.said() // it may be half of a change
			s.has(every-1, 1)
			s.said()
			s.has(1, 1)
			s.said(refused)
			s.has(every, 1)
			s.has(every, 1)
			s.said()
			if err := s.pair.Reload(); err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Reload: %v", err)
			}
			s.has(0, 1)
			s.has(every, 1)
			s.said()
			os.Remove(s.key)
			s.issue(2, time.Hour)
			s.has(every, 2)
			s.said(changed)

			// Nothing to begin with.
			c.spoil(s)
			if p, err := Load(s.cert, s.key, nil); err == nil || p != nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Load: %v", err)
			}

			// Reload has said it already.
			if err := s.pair.Reload(); err == nil {
				t.Error("Reload knows of nothing")
			}
			s.has(every, 2)
			s.has(every, 2)
			s.said()
		})
	}
}

// TestHalfway: while one of the files is new and the other is not, nobody complains, and a
// complaint that is over is forgotten.
func TestHalfway(t *testing.T) {
	s := newSite(t)
	s.begin()
	old, err := os.ReadFile(s.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := s.ca.Issue(2, time.Hour)
	s.write(s.key, key)
	s.has(every, 1)
	s.write(s.cert, cert)
	s.has(every, 2)
	s.said(changed)
	for range 2 {
		s.write(s.key, old)
		s.has(every, 2)
		s.has(every, 2)
		s.said(refused)
		s.write(s.key, key)
		s.has(every, 2)
		s.said()
	}
}

// TestExpired: one that is out of date is better than none.
func TestExpired(t *testing.T) {
	s := newSite(t)
	s.issue(1, -time.Minute)
	s.begin()
	s.said(invalid)
	s.has(0, 1)
	s.issue(2, -time.Minute)
	s.has(every, 2)
	s.said(invalid, changed)
	s.issue(3, time.Hour)
	s.has(every, 3)
	s.said(changed)
}

// TestOneFile: both may be in one, under a symbolic link.
func TestOneFile(t *testing.T) {
	s := newSite(t)
	dir := filepath.Dir(s.cert)
	both := func(serial int64) string {
		cert, key := s.ca.Issue(serial, time.Hour)
		name := filepath.Join(dir, string(rune('a'+serial)))
		s.write(name, append(cert, key...))
		return name
	}
	link := filepath.Join(dir, "now.pem")
	for serial := int64(1); serial <= 2; serial++ {
		if err := os.Symlink(both(serial), link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		if s.cert, s.key = link, link; serial == 1 {
			s.begin()
		}
		s.has(every, serial)
	}
}

// TestCrowd: many clients at once, while the files change.
func TestCrowd(t *testing.T) {
	s := newSite(t)
	pair, err := Load(s.cert, s.key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var ticks time.Duration
	var mu sync.Mutex
	pair.clock = func() time.Time { // everybody comes a second later
		mu.Lock()
		defer mu.Unlock()
		ticks += every
		return s.now.Add(ticks)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c, err := pair.GetCertificate(nil); err != nil || c.PrivateKey == nil {
					t.Error(c, err)
					return
				}
			}
		})
	}
	for serial := int64(2); serial < 12; serial++ {
		s.issue(serial, time.Hour)
		if err := pair.Reload(); err != nil {
			t.Error(err)
		}
		if c, _ := pair.GetCertificate(nil); c.Leaf.SerialNumber.Int64() != serial {
			t.Errorf("certificate %v, and not %d", c.Leaf.SerialNumber, serial)
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkLook(b *testing.B) {
	ca := testca.New(b)
	dir := b.TempDir()
	cert, key := ca.Issue(1, time.Hour)
	name := filepath.Join(dir, "pem")
	if err := os.WriteFile(name, append(cert, key...), 0o600); err != nil {
		b.Fatal(err)
	}
	p, err := Load(name, name, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			p.look()
		}
	})
	b.Run("GetCertificate", func(b *testing.B) {
		for b.Loop() {
			_, _ = p.GetCertificate(nil)
		}
	})
}
