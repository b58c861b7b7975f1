package protocols_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/testca"
	"github.com/handover-go/handover/worker"
)

const envCert = "PROTOCOLS_CERT"

// serveHTTP2 answers what is posted, after 20 ms: by HTTP/2 in plaintext on the socket h2c,
// and on TLS on h2.
func serveHTTP2(ctx context.Context, w *worker.Worker) error {
	cert, err := tls.LoadX509KeyPair(os.Getenv(envCert), os.Getenv(envCert))
	if err != nil {
		return err
	}
	plain, secure := http2Servers(w)
	w.Go(func(ctx context.Context) error { return w.Serve(ctx, "h2c", plain) })
	return w.ServeTLS(ctx, "h2", secure, &tls.Config{Certificates: []tls.Certificate{cert}})
}

func http2Servers(w *worker.Worker) (plain, secure *http.Server) {
	name := who(w)
	handler := w.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		<-time.After(20 * time.Millisecond)
		fmt.Fprintf(rw, "%s %s %s\n", name, r.Proto, b)
	}))
	plain = &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	plain.Protocols.SetUnencryptedHTTP2(true)
	return plain, &http.Server{Handler: handler}
}

// closed is an *http.Server of which a drain cuts what it has.
type closed struct{ srv *http.Server }

func (c closed) Serve(ln net.Listener) error    { return c.srv.Serve(ln) }
func (c closed) Shutdown(context.Context) error { return c.srv.Close() }

func serveClosed(ctx context.Context, w *worker.Worker) error {
	plain, _ := http2Servers(w)
	return w.Serve(ctx, "h2c", closed{plain})
}

// startHTTP2 starts a service, and returns the URLs of its sockets.
func startHTTP2(t *testing.T) (s *service, urls map[string]string) {
	cert, key := testca.New(t).Issue(1, time.Hour)
	name := file(t)
	if err := os.WriteFile(name, append(cert, key...), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, "http2", "h2c=tcp://127.0.0.1:0,h2=tcp://127.0.0.1:0", envCert+"="+name)
	started := s.await(0, "msg=started")
	return s, map[string]string{
		"h2c": "http://" + match(started, `\bh2c=tcp://([^\s,"]+)`) + "/",
		"TLS": "https://" + match(started, `\bh2=tcp://([^\s,"]+)`) + "/",
	}
}

// midst does what a client does, with an upgrade beside it, until that has come in the midst
// of it three times.
func midst(t *testing.T, s *service, do func() (met bool)) {
	t.Helper()
	for n, late := 0, time.Now().Add(patience); n < 3; {
		if time.Now().After(late) || t.Failed() {
			t.Fatalf("%d upgrades came in the midst of requests within %v", n, patience)
		}
		upgraded := make(chan struct{})
		go func() { defer close(upgraded); s.upgrade() }()
		if do() {
			n++
		}
		<-upgraded
	}
}

// TestCurl: curl gets each of its answers in upgrades.
func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed (Debian: apt-get install curl)")
	}
	t.Parallel()
	s, urls := startHTTP2(t)
	const n = 200
	for name, curl := range map[string]func(url string) (string, error){
		// Requests beside one another on a connection. curl makes another one when it is told to.
		"TLS": func(url string) (string, error) {
			out, err := exec.CommandContext(t.Context(), "curl", "--http2", "-k", "--no-progress-meter", "--fail", "--parallel", "--parallel-max", "8",
				"--data", "posted", fmt.Sprintf("%s?[1-%d]", url, n)).CombinedOutput()
			return string(out), err
		},
		// A connection for each, since curl 7.88.1 can't use such a one again (exit code 16).
		"h2c": func(url string) (string, error) {
			var all sync.WaitGroup
			out, errs := make([]string, 8), make([]error, 8)
			for i := range out {
				all.Go(func() {
					for range n / len(out) {
						b, err := exec.CommandContext(t.Context(), "curl", "--http2-prior-knowledge", "--silent", "--show-error", "--fail",
							"--data", "posted", url).CombinedOutput()
						out[i], errs[i] = out[i]+string(b), errors.Join(errs[i], err)
					}
				})
			}
			all.Wait()
			return strings.Join(out, ""), errors.Join(errs...)
		},
	} {
		midst(t, s, func() bool {
			out, err := curl(urls[name])
			good := regexp.MustCompile(`(?m)^generation=(\d+) \S+ pid=\d+ HTTP/2\.0 posted$`).FindAllStringSubmatch(out, -1)
			if err != nil || len(good) != n || strings.Count(out, "\n") != n {
				t.Errorf("%s: %d of %d answers: %v: %.1000s", name, len(good), n, err, out)
			}
			by := map[string]bool{}
			for _, m := range good {
				by[m[1]] = true
			}
			return len(by) > 1
		})
	}
	s.stop()
	s.clean()
}

// relay is a way to a server on which requests of HTTP/2 in plaintext are counted: h2load also
// counts what it would have sent, had the server not said first that it leaves.
func relay(t *testing.T, to string) (addr string, requests *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				t.Errorf("a client noticed: %v", err)
				client.Close()
				continue
			}
			all.Go(func() {
				defer server.Close()
				passFrames(server, client, requests)
			})
			all.Go(func() {
				defer client.Close()
				_, _ = io.Copy(client, server)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return ln.Addr().String(), requests
}

// passFrames passes what a client of HTTP/2 sends on: RFC 9113, sections 3.4 and 4.1.
func passFrames(to io.Writer, from io.Reader, requests *atomic.Int64) {
	const preface, header, headers = 24, 9, 1
	br := bufio.NewReader(from)
	_, err := io.CopyN(to, br, preface)
	for err == nil {
		var h []byte
		if h, err = br.Peek(header); err != nil {
			return
		}
		if h[3] == headers {
			requests.Add(1)
		}
		_, err = io.CopyN(to, br, header+int64(h[0])<<16+int64(h[1])<<8+int64(h[2]))
	}
}

// h2loadSays is what h2load says at the end.
var h2loadSays = regexp.MustCompile(`requests: (\d+) total, (\d+) started, \d+ done, (\d+) succeeded, (\d+) failed, `)

// h2load has 8 clients, each with 10 requests beside one another. They don't connect anew when
// the server leaves: what they would have sent then has "failed". lost are those that were
// sent, left those that were not.
func h2load(t *testing.T, addr string) (lost, left int) {
	t.Helper()
	by, requests := relay(t, addr)
	out, err := exec.CommandContext(t.Context(), "h2load", "-c", "8", "-m", "10", "-n", "1600", "http://"+by+"/").CombinedOutput()
	m := h2loadSays.FindStringSubmatch(string(out))
	if err != nil || m == nil {
		t.Fatalf("h2load: %v: %.1000s", err, out)
	}
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1])
	}
	total, started, succeeded, failed, sent := n[0], n[1], n[2], n[3], int(requests.Load())
	if succeeded == 0 || succeeded > sent || sent > started || succeeded+failed != total {
		t.Fatalf("%d requests were sent, and these figures don't add up: %s", sent, m[0])
	}
	return sent - succeeded, total - sent
}

// TestH2load: of what h2load has sent nothing is lost in upgrades.
func TestH2load(t *testing.T) {
	if _, err := exec.LookPath("h2load"); err != nil {
		t.Skip("h2load is not installed (Debian: apt-get install nghttp2-client)")
	}
	t.Parallel()
	s, urls := startHTTP2(t)
	midst(t, s, func() bool {
		lost, left := h2load(t, match(urls["h2c"], `//([^/]+)`))
		if lost != 0 {
			t.Errorf("%d requests were lost", lost)
		}
		return left > 0
	})
	s.stop()
	s.clean()
}

// TestH2loadLoses: and it sees what is.
func TestH2loadLoses(t *testing.T) {
	if _, err := exec.LookPath("h2load"); err != nil {
		t.Skip("h2load is not installed (Debian: apt-get install nghttp2-client)")
	}
	t.Parallel()
	s := start(t, "http2 closed", "h2c=tcp://127.0.0.1:0")
	midst(t, s, func() bool {
		lost, _ := h2load(t, s.addr)
		return lost > 0
	})
	s.stop()
}
