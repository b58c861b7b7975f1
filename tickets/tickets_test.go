package tickets

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/testca"
)

// testClock is set by tests.
type testClock struct{ ns atomic.Int64 }

func (c *testClock) now() time.Time      { return time.Unix(0, c.ns.Load()) }
func (c *testClock) add(d time.Duration) { c.ns.Add(int64(d)) }
func newClock() *testClock {
	c := &testClock{}
	c.ns.Store(sinceBoot().UnixNano())
	return c
}

// log is what was logged.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// said reports how often a message was logged, and forgets it.
func (l *log) said(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return strings.Count(l.buf.String(), what)
}

const (
	badFile  = "session ticket keys can't be read: they are written anew"
	unshared = "session ticket keys can't be shared"
)

func newFile(t testing.TB) *os.File {
	t.Helper()
	f, err := File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// share makes Keys of a copy of the file.
func share(t testing.TB, f *os.File, cfg Config) *Keys {
	t.Helper()
	var fd int
	rc, err := f.SyscallConn()
	if err == nil {
		err = rc.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	}
	if err != nil || fd < 3 {
		t.Fatal(fd, err)
	}
	k, err := New(os.NewFile(uintptr(fd), "tickets"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// site has certificates, and clients that keep their sessions.
type site struct {
	*testca.CA
	cfg *tls.Config
}

func newSite(t testing.TB) *site {
	ca := testca.New(t)
	return &site{ca, &tls.Config{Certificates: []tls.Certificate{certificate(t, ca, 1)}}}
}

func certificate(t testing.TB, ca *testca.CA, serial int64) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(ca.Issue(serial, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *site) client(version uint16) *tls.Config {
	return &tls.Config{RootCAs: s.Pool, ServerName: "localhost", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
}

// pipe is a connection: one of net.Pipe would have both write and nobody read.
func pipe(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ours, err = net.Dial("tcp", ln.Addr().String()); err == nil {
		theirs, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// refused is how the server's handshake fails.
func refused(t testing.TB, server, client *tls.Config) error {
	t.Helper()
	ours, theirs := pipe(t)
	done := make(chan error, 1)
	go func() { done <- tls.Client(ours, client).Handshake() }()
	err := tls.Server(theirs, server).Handshake()
	theirs.Close()
	<-done
	ours.Close()
	return err
}

// connect shakes hands, and reads what comes after that: the tickets among it.
func connect(t testing.TB, server, client *tls.Config) (resumed bool) {
	t.Helper()
	ours, theirs := pipe(t)
	served := make(chan error, 1)
	go func() {
		c := tls.Server(theirs, server)
		_, err := c.Write([]byte("x"))
		served <- errors.Join(err, c.Close())
	}()
	c := tls.Client(ours, client)
	b, err := io.ReadAll(c)
	state := c.ConnectionState()
	c.Close()
	if serr := <-served; err != nil || string(b) != "x" {
		t.Fatalf("client: %q, %v; server: %v", b, err, serr)
	}
	return state.DidResume
}

// want connects, to be resumed or not.
func want(t testing.TB, what string, resumed bool, server, client *tls.Config) {
	t.Helper()
	if got := connect(t, server, client); got != resumed {
		t.Errorf("%s: resumed %v", what, got)
	}
}

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

func TestShared(t *testing.T) {
	s := newSite(t)
	f := newFile(t)
	a, b := share(t, f, Config{}).TLS("web", s.cfg), share(t, f, Config{}).TLS("web", s.cfg)
	other := share(t, newFile(t), Config{}).TLS("web", s.cfg)
	for name, v := range versions {
		c := s.client(v)
		want(t, name+", the first time", false, a, c)
		for range 3 {
			want(t, name+", at another", true, b, c)
			want(t, name+", a clone", true, a.Clone(), c)
		}
		want(t, name+", another file", false, other, c)
	}
}

// TestNames: a client of one name is none of another, whatever its ticket says.
func TestNames(t *testing.T) {
	s := newSite(t)
	k := share(t, newFile(t), Config{})
	web, again, admin := k.TLS("web", s.cfg), k.TLS("web", s.cfg), k.TLS("admin", s.cfg)
	c := s.client(tls.VersionTLS13)
	want(t, "the first time", false, web, c)
	want(t, "another config of the name", true, again, c)
	want(t, "another name", false, admin, c)
	want(t, "the first one, with the other one's ticket", false, web, c)
}

// TestRespects: what the caller has set stays.
func TestRespects(t *testing.T) {
	s := newSite(t)
	k := share(t, newFile(t), Config{})
	if c := k.TLS("web", nil); c == nil || c.WrapSession == nil {
		t.Errorf("of no config: %+v", c)
	}
	before := s.cfg.Clone()
	k.TLS("web", s.cfg)
	if s.cfg.WrapSession != nil || before.WrapSession != nil {
		t.Error("the caller's config was changed")
	}

	off := s.cfg.Clone()
	off.SessionTicketsDisabled = true
	c := s.client(tls.VersionTLS13)
	want(t, "no tickets", false, k.TLS("web", off), c)
	want(t, "no tickets, again", false, k.TLS("web", off), c)

	var wrapped, unwrapped int
	own := s.cfg.Clone()
	own.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		wrapped++
		return own.EncryptTicket(cs, ss)
	}
	own.UnwrapSession = func(id []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		unwrapped++
		return own.DecryptTicket(id, cs)
	}
	c = s.client(tls.VersionTLS13)
	want(t, "the caller's", false, k.TLS("web", own), c)
	want(t, "the caller's, again", true, k.TLS("web", own), c)
	if wrapped != 2 || unwrapped != 1 {
		t.Errorf("the caller's functions were called %d and %d times", wrapped, unwrapped)
	}
}

// TestConfigForClient: a config that is chosen for a client has the keys, too.
func TestConfigForClient(t *testing.T) {
	s := newSite(t)
	f := newFile(t)
	chosen := s.cfg
	var failure error
	choose := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, failure }, Certificates: s.cfg.Certificates}
	a, b := share(t, f, Config{}).TLS("web", choose), share(t, f, Config{}).TLS("web", choose)
	c := s.client(tls.VersionTLS13)
	want(t, "the first time", false, a, c)
	want(t, "at another", true, b, c)
	chosen = nil // go on with the original
	want(t, "the original config", true, a, c)
	chosen = s.cfg.Clone()
	chosen.SessionTicketsDisabled = true
	want(t, "one without tickets", false, b, c)
	failure = errors.New("not this one")
	if err := refused(t, a, c); !errors.Is(err, failure) {
		t.Errorf("its error: %v", err)
	}
}

// TestClientCertificates: who has to show one has to have shown one.
func TestClientCertificates(t *testing.T) {
	s := newSite(t)
	k := share(t, newFile(t), Config{})
	strict := s.cfg.Clone()
	strict.ClientAuth, strict.ClientCAs = tls.RequireAndVerifyClientCert, s.Pool
	web, admin := k.TLS("web", s.cfg), k.TLS("web", strict) // the same name, against the advice
	c := s.client(tls.VersionTLS13)
	c.Certificates = []tls.Certificate{certificate(t, s.CA, 2)}
	want(t, "without", false, web, c)
	want(t, "a ticket without", false, admin, c)
	want(t, "a ticket with", true, admin, c)
	others := s.cfg.Clone()
	others.ClientAuth, others.ClientCAs = tls.RequireAndVerifyClientCert, testca.New(t).Pool
	if err := refused(t, k.TLS("web", others), c); err == nil {
		t.Error("a client of one authority is let in by another")
	}
}

// TestRotation: a new key is there in time, before it there was one, and after a while what
// was encrypted by the old one is only good for whoever recorded it.
func TestRotation(t *testing.T) {
	s := newSite(t)
	f := newFile(t)
	now := newClock()
	cfg := Config{Every: 12 * time.Hour, Keep: 24 * time.Hour, now: now.now}
	a, b := share(t, f, cfg), share(t, f, cfg)
	web, web2 := a.TLS("web", s.cfg), b.TLS("web", s.cfg)
	first := a.ring[0]
	old := s.client(tls.VersionTLS13)
	want(t, "the first time", false, web, old)
	session, _ := old.ClientSessionCache.Get("localhost")
	for hours := 1; hours <= 40; hours++ {
		now.add(time.Hour)
		c := s.client(tls.VersionTLS13)
		c.ClientSessionCache.Put("localhost", session)
		want(t, "the first ticket", hours < 12+24, web2, c)
		want(t, "a new one", true, web, c)
	}
	if len(a.ring) != 3 || a.ring[0] == first {
		t.Errorf("%d keys after 40 hours", len(a.ring))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	data, err := read(f)
	if err != nil || bytes.Contains(data[:], first.secret[:]) {
		t.Errorf("the first key is still in the file (%v)", err)
	}
}

// TestNewcomers: who has no ticket gets none of a key that is too old.
func TestNewcomers(t *testing.T) {
	s := newSite(t)
	f := newFile(t)
	now := newClock()
	k := share(t, f, Config{now: now.now})
	before := k.ring[0]
	now.add(DefaultEvery)
	want(t, "the first time", false, k.TLS("web", s.cfg), s.client(tls.VersionTLS13))
	if k.ring[0] == before {
		t.Error("no new key")
	}
}

// TestRotatesAlone: also when nobody connects.
func TestRotatesAlone(t *testing.T) {
	f := newFile(t)
	before, _ := read(f)
	share(t, f, Config{Every: 10 * time.Millisecond, Keep: 20 * time.Millisecond})
	first, _ := parse(before)
	for end := time.Now().Add(10 * time.Second); ; <-time.After(time.Millisecond) {
		b, err := read(f)
		if err == nil && !bytes.Contains(b[:], first[0].secret[:]) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the first key is still there")
		}
	}
}

// TestSpoilt: what is not right in the file is never used, and is put right.
func TestSpoilt(t *testing.T) {
	s := newSite(t)
	next := fresh()
	for range 3 {
		next = next.next(time.Now(), time.Hour, secret())
	}
	for name, b := range map[string][]byte{
		"nothing":  {},
		"zeros":    make([]byte, size),
		"garbage":  bytes.Repeat([]byte("garbage "), size),
		"half":     func() []byte { b := next.format(); return b[:size/2] }(),
		"a bit":    func() []byte { b := next.format(); b[100] ^= 1; return b[:] }(),
		"too much": func() []byte { b := next.format(); b[8] = 200; return b[:] }(),
	} {
		t.Run(name, func(t *testing.T) {
			var l log
			f := newFile(t)
			a := share(t, f, Config{Logger: l.logger()})
			web := a.TLS("web", s.cfg)
			c := s.client(tls.VersionTLS13)
			want(t, "before", false, web, c)
			spoil := func() {
				t.Helper()
				if err := f.Truncate(0); err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt(b, 0); err != nil && len(b) > 0 {
					t.Fatal(err)
				}
			}
			spoil()
			want(t, "after", true, web, c)
			if n := l.said(badFile); n != 1 {
				t.Errorf("said %d times", n)
			}
			want(t, "who comes later", true, share(t, f, Config{Logger: l.logger()}).TLS("web", s.cfg), c)
			if n := l.said("level="); n != 0 {
				t.Errorf("%d messages", n)
			}
			spoil() // before there is anybody who knows better
			late := share(t, f, Config{Logger: l.logger()})
			if n := l.said(badFile); n != 1 || late.ring[0] == a.ring[0] {
				t.Errorf("said %d times", n)
			}
			c = s.client(tls.VersionTLS13)
			want(t, "a new key", false, late.TLS("web", s.cfg), c)
			want(t, "a new key, known to all", true, web, c)
		})
	}
}

// TestAlone: a process that can't share has keys of its own.
func TestAlone(t *testing.T) {
	s := newSite(t)
	check := func(what string, k *Keys, l *log, now *testClock, f *os.File) {
		t.Helper()
		if n := l.said(unshared); n != 1 {
			t.Errorf("%s: said %d times", what, n)
		}
		web := k.TLS("web", s.cfg)
		c := s.client(tls.VersionTLS13)
		want(t, what, false, web, c)
		want(t, what+", again", true, web, c)
		if f != nil {
			want(t, what+", at another", false, share(t, f, Config{}).TLS("web", s.cfg), c)
		}
		before := k.ring[0]
		now.add(DefaultEvery)
		want(t, what+", after a while", f == nil, web, c)
		if k.ring[0] == before || l.said("level=") != 0 {
			t.Errorf("%s: no new key, or said again", what)
		}
	}
	{ // of a file that can't be written
		var l log
		now := newClock()
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		k, err := New(f, Config{Logger: l.logger(), now: now.now})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		check("a bad descriptor", k, &l, now, nil)
	}
	{ // of another version, whose file is left as it is
		var l log
		now := newClock()
		f := newFile(t)
		b := fresh().format()
		b[7]++
		if err := write(f, b); err != nil {
			t.Fatal(err)
		}
		k := share(t, f, Config{Logger: l.logger(), now: now.now})
		check("another version", k, &l, now, nil)
		if now, err := read(f); err != nil || now != b {
			t.Errorf("the file was changed (%v)", err)
		}
	}
}

// TestClose: what is connected goes on.
func TestClose(t *testing.T) {
	s := newSite(t)
	k := share(t, newFile(t), Config{})
	web := k.TLS("web", s.cfg)
	c := s.client(tls.VersionTLS13)
	want(t, "before", false, web, c)
	k.Close()
	k.Close()
	want(t, "after", true, web, c)
	want(t, "a config made after", true, k.TLS("web", s.cfg), c)
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg, is Config
		bad     string
	}{
		{cfg: Config{}, is: Config{Every: DefaultEvery, Keep: DefaultKeep}},
		{cfg: Config{Every: time.Hour}, is: Config{Every: time.Hour, Keep: 2 * time.Hour}},
		{cfg: Config{Every: 48 * time.Hour}, is: Config{Every: 48 * time.Hour, Keep: 24 * time.Hour}},
		{cfg: Config{Keep: time.Hour}, is: Config{Every: 30 * time.Minute, Keep: time.Hour}},
		{cfg: Config{Keep: 48 * time.Hour}, is: Config{Every: 12 * time.Hour, Keep: 48 * time.Hour}},
		{cfg: Config{Every: 1, Keep: 6}, is: Config{Every: 1, Keep: 6}},
		{cfg: Config{Every: 1, Keep: 7}, bad: "keep it at most 6 times as long"},
		{cfg: Config{Keep: 73 * time.Hour}, bad: "keep it at most 6 times as long"},
		{cfg: Config{Every: -1}, bad: "both must be positive"},
		{cfg: Config{Keep: -1}, bad: "both must be positive"},
		{cfg: Config{Every: 1, Keep: -1}, bad: "both must be positive"},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
		if d := c.cfg.withDefaults(); c.bad == "" && (d.Every != c.is.Every || d.Keep != c.is.Keep) {
			t.Errorf("%+v becomes every %v, kept %v", c.cfg, d.Every, d.Keep)
		}
		f := newFile(t)
		k, err := New(f, c.cfg)
		if (err == nil) != (c.bad == "") {
			t.Errorf("New: %v", err)
		}
		if err == nil {
			k.Close()
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the file is left open: %v", err)
		}
	}
}

func BenchmarkTicket(b *testing.B) {
	s := newSite(b)
	web := share(b, newFile(b), Config{}).TLS("web", s.cfg)
	b.Run("handshake/shared", func(b *testing.B) {
		for b.Loop() {
			connect(b, web, s.client(tls.VersionTLS13))
		}
	})
	b.Run("handshake/own", func(b *testing.B) {
		for b.Loop() {
			connect(b, s.cfg, s.client(tls.VersionTLS13))
		}
	})
	b.Run("resumed/shared", func(b *testing.B) {
		c := s.client(tls.VersionTLS13)
		for b.Loop() {
			connect(b, web, c)
		}
	})
	b.Run("resumed/own", func(b *testing.B) {
		c := s.client(tls.VersionTLS13)
		for b.Loop() {
			connect(b, s.cfg, c)
		}
	})
	k := share(b, newFile(b), Config{})
	b.Run("look", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k.look()
		}
	})
}
