package handover_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/certs"
	"github.com/handover-go/handover/internal/testca"
	"github.com/handover-go/handover/tickets"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/worker"
)

// tlsServer answers one request on each connection.
type tlsServer struct {
	cfg  *tls.Config
	who  string
	open sync.WaitGroup
}

func (s *tlsServer) Serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		s.open.Go(func() { s.answer(tls.Server(c, s.cfg)) })
	}
}

func (s *tlsServer) answer(c net.Conn) {
	defer c.Close()
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil && req.Close {
		_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Worker: %s\r\nContent-Length: 6\r\n\r\nhello\n", s.who)
	}
	if err != nil {
		slog.Error("a request has failed", "error", err)
	}
}

func (s *tlsServer) Shutdown(context.Context) error { s.open.Wait(); return nil }

// newTLSServer has the certificate in the test's directory, and says who it is.
func newTLSServer(who string, share func(*tls.Config) *tls.Config) (*tlsServer, *certs.Pair, error) {
	dir := os.Getenv("TEST_CERTS")
	pair, err := certs.Load(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), nil)
	if err != nil {
		return nil, nil, err
	}
	cfg := &tls.Config{GetCertificate: pair.GetCertificate}
	if os.Getenv("TEST_UNSHARED") == "" {
		cfg = share(cfg)
	}
	return &tlsServer{cfg: cfg, who: who}, pair, nil
}

func tlsApp(ctx context.Context, w *worker.Worker) error {
	who := fmt.Sprintf("generation=%d pid=%d", w.Generation(), os.Getpid())
	srv, pair, err := newTLSServer(who, func(cfg *tls.Config) *tls.Config { return w.TLS("http", cfg) })
	if err != nil {
		return err
	}
	w.OnReopen(pair.Reload)
	return w.Serve(ctx, "http", srv)
}

// soloTLS is tlsApp for a process without workers.
func soloTLS(up *upgrader.Upgrader, who string) (srv *tlsServer, keys *tickets.Keys) {
	f, err := up.KeptFile("tickets", tickets.File)
	if err == nil {
		keys, err = tickets.New(f, tickets.Config{})
	}
	if err == nil {
		srv, _, err = newTLSServer(who, func(cfg *tls.Config) *tls.Config { return keys.TLS("http", cfg) })
	}
	if err != nil {
		panic(err)
	}
	return srv, keys
}

// certDir has certificates where the service looks for one.
type certDir struct {
	*testca.CA
	t   *testing.T
	dir string
}

func newCertDir(t *testing.T) certDir {
	c := certDir{testca.New(t), t, t.TempDir()}
	c.issue(1)
	return c
}

func (c certDir) env() string { return "TEST_CERTS=" + c.dir }

// issue puts a new certificate in place, as those do who renew one: one file after the other.
func (c certDir) issue(serial int64) {
	c.t.Helper()
	cert, key := c.Issue(serial, time.Hour)
	c.put("key.pem", key)
	c.put("cert.pem", cert)
}

func (c certDir) put(name string, b []byte) {
	c.t.Helper()
	replace(c.t, filepath.Join(c.dir, name), func(tmp string) error { return os.WriteFile(tmp, b, 0o600) })
}

// visitor is a client that makes a connection for each request, and takes no failure.
type visitor struct {
	t      *testing.T
	url    string
	client *http.Client
	known  map[string]bool // who has seen it
}

// visitor of a version of TLS. With a cache it resumes its sessions.
func (c certDir) visitor(s *service, version uint16, cache bool) *visitor {
	cfg := &tls.Config{RootCAs: c.Pool, MaxVersion: version}
	if cache {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	return &visitor{
		t: c.t, url: "https://" + s.addr + "/", known: map[string]bool{},
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: 20 * time.Second},
	}
}

// visit says who has answered, and what was shaken hands on.
func (v *visitor) visit() (who string, cs *tls.ConnectionState, err error) {
	resp, err := v.client.Get(v.url)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello\n" || resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("%s, %q, %v", resp.Status, b, err)
	}
	return resp.Header.Get("X-Worker"), resp.TLS, nil
}

// until visits until somebody answers who is wanted. If tickets are shared, each visit but the
// first resumes; else none does with somebody who does not know the client.
func (v *visitor) until(shared bool, wanted func(who string) bool) {
	v.t.Helper()
	until(v.t, 30*time.Second, func() string {
		who, cs, err := v.visit()
		if err != nil {
			v.t.Fatal(err)
		}
		stranger := !v.known[who]
		switch {
		case shared && cs.DidResume != (len(v.known) > 0):
			v.t.Fatalf("TLS %x of %s, known to %v: resumed %v", cs.Version, who, v.known, cs.DidResume)
		case !shared && stranger && cs.DidResume:
			v.t.Fatalf("TLS %x of %s, which has never seen it, was resumed", cs.Version, who)
		}
		v.known[who] = true
		if !wanted(who) {
			return "never answered by who should have, but by " + who
		}
		return ""
	})
}

// TestResume: a client that comes back resumes its session whoever it reaches.
func TestResume(t *testing.T) {
	for name, env := range map[string][]string{"shared": nil, "not shared": {"TEST_UNSHARED=1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCertDir(t)
			s := startService(t, 2, append(env, "TEST_APP=tls", c.env())...)
			visitors := []*visitor{c.visitor(s, tls.VersionTLS13, true), c.visitor(s, tls.VersionTLS12, true)}
			all := func(wanted func(who string) bool) {
				t.Helper()
				for _, v := range visitors {
					v.until(env == nil, wanted)
				}
			}
			isNew := func(before []int) func(string) bool {
				return func(who string) bool {
					pid, _ := strconv.Atoi(match(who, `pid=(\d+)`))
					return !slices.Contains(before, pid)
				}
			}
			for _, pid := range s.workers() {
				all(func(who string) bool { return strings.HasSuffix(who, fmt.Sprintf("pid=%d", pid)) })
			}
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				before, from := s.workers(), s.mark()
				if err := syscall.Kill(before[0], sig); err != nil {
					t.Fatal(err)
				}
				if _, err := s.waitFrom(from, has(`msg="worker exited"`, fmt.Sprintf("pid=%d ", before[0]))); err != nil {
					t.Fatal(err)
				}
				all(isNew(before))
			}
			for range 2 {
				before := s.workers()
				s.upgrade()
				all(isNew(before))
			}
			// Nobody is left who has the keys, but the anchor.
			before, from := s.workers(), s.mark()
			for _, pid := range append([]int{s.parent()}, before...) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.waitFrom(from, has(`msg="generation serves"`)); err != nil {
				t.Fatal(err)
			}
			all(isNew(before))
			s.stop()
		})
	}
}

// TestResumeSolo is TestResume for one process, without workers.
func TestResumeSolo(t *testing.T) {
	for name, env := range map[string][]string{"shared": nil, "not shared": {"TEST_UNSHARED=1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCertDir(t)
			s := startSolo(t, "tcp://127.0.0.1:0", append(env, "TEST_APP=tls", c.env())...)
			v := c.visitor(s, tls.VersionTLS13, true)
			for n := 1; n <= 3; n++ {
				if n > 1 {
					s.upgrade()
				}
				v.until(env == nil, func(who string) bool { return strings.Contains(who, fmt.Sprintf("generation=%d ", n)) })
			}
			if err := s.end(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTicketRotation: the service says how often there is a new key.
func TestTicketRotation(t *testing.T) {
	t.Parallel()
	c := newCertDir(t)
	s, _ := grouped(t, `[{"Name": "web"}]`, "TEST_APP=tls", `TEST_DEFAULTS={"TicketRotation":1000000000}`, c.env())
	dir := fmt.Sprintf("/proc/%d/fd", s.workers()[0])
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys := func() []byte {
		for _, fd := range list {
			path := filepath.Join(dir, fd.Name())
			if to, err := os.Readlink(path); err == nil && strings.Contains(to, "memfd:tickets") {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
		}
		t.Fatal("there is no file of keys")
		return nil
	}
	first := keys()
	until(t, 30*time.Second, func() string {
		if bytes.Equal(keys(), first) {
			return "there is no new key"
		}
		return ""
	})
	s.stop()
}

// crowd are clients that connect without a pause, and count whose certificate they saw.
type crowd struct {
	end  chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	serials map[int64]int
	failed  []error
}

func (c certDir) crowd(s *service) *crowd {
	m := &crowd{end: make(chan struct{}), serials: map[int64]int{}}
	for range 2 {
		v := c.visitor(s, tls.VersionTLS13, false)
		m.done.Go(func() {
			for {
				select {
				case <-m.end:
					return
				case <-time.After(5 * time.Millisecond):
				}
				_, cs, err := v.visit()
				m.mu.Lock()
				if err != nil {
					m.failed = append(m.failed, err)
				} else {
					m.serials[cs.PeerCertificates[0].SerialNumber.Int64()]++
				}
				m.mu.Unlock()
			}
		})
	}
	return m
}

func (m *crowd) count(serial int64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serials[serial]
}

// TestCertificate: certificates are exchanged under load, in all workers, without a restart;
// what can't be used changes nothing.
func TestCertificate(t *testing.T) {
	t.Parallel()
	c := newCertDir(t)
	s := startService(t, 2, "TEST_APP=tls", c.env())
	workers := s.workers()
	resumes := c.visitor(s, tls.VersionTLS13, true)
	resumes.until(true, func(string) bool { return len(resumes.known) == 2 })
	m := c.crowd(s)
	sees := func(serial int64) {
		t.Helper()
		n := m.count(serial)
		until(t, 30*time.Second, func() string {
			if m.count(serial) < n+20 {
				return fmt.Sprintf("certificate %d: %d handshakes", serial, m.count(serial))
			}
			return ""
		})
	}
	switched := func(from int, serial int64) {
		t.Helper()
		for range workers {
			next, err := s.waitFrom(from, has(`msg="another certificate is used from now on"`, fmt.Sprintf("serial=%x ", serial)))
			if err != nil {
				t.Fatal(err)
			}
			for s.lineAt(from) != next {
				from++
			}
			from++
		}
	}
	sees(1)
	from := s.mark()
	c.issue(2)
	switched(from, 2)
	sees(2)
	old := m.count(1)

	// A key of another certificate: said once by each worker.
	from = s.mark()
	_, key := c.Issue(99, time.Hour)
	good, err := os.ReadFile(filepath.Join(c.dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c.put("key.pem", key)
	const refused = `msg="the certificate can't be used: the one before stays"`
	until(t, 30*time.Second, func() string {
		if s.countFrom(from, has(refused, "private key does not match", c.dir+"/key.pem")) < len(workers) {
			return "not every worker has said that the key does not fit"
		}
		return ""
	})
	sees(2)
	c.put("key.pem", good)

	// At USR1 at once, also where nobody connects.
	from = s.mark()
	c.issue(3)
	s.signal(syscall.SIGUSR1)
	switched(from, 3)
	sees(3)
	resumes.until(true, func(string) bool { return true }) // a session from before
	close(m.end)
	m.done.Wait()
	if len(m.failed) > 0 {
		t.Errorf("%d failures, such as %v", len(m.failed), m.failed[0])
	}
	if n := m.count(1); n > old+2 { // each client may just have been shaking hands
		t.Errorf("%d handshakes with the first certificate after both workers had the second one", n-old)
	}
	if n := s.countFrom(0, has(refused)); n != len(workers) {
		t.Errorf("%d workers have complained %d times", len(workers), n)
	}
	if now := s.workers(); !slices.Equal(now, workers) {
		t.Errorf("workers %v are %v", workers, now)
	}
	t.Logf("handshakes by certificate: %v", m.serials)
	s.stop()
}

// lineAt is a line of the log, countFrom how many from there on are ok.
func (s *service) lineAt(i int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[i]
}

func (s *service) countFrom(from int, ok func(string) bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines[from:] {
		if ok(line) {
			n++
		}
	}
	return n
}
