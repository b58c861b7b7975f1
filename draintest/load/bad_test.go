package load

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A behaviour does to one connection, whose request's header has been read, what
// a server does. The connection is closed afterwards.
type behaviour func(c *net.TCPConn, req *http.Request)

// serveRaw serves connections: every odd one as bad does, every other as good does, and
// all if there is no bad.
func serveRaw(t testing.TB, ln net.Listener, bad, good behaviour) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			do := good
			if n%2 == 1 && bad != nil {
				do = bad
			}
			wg.Go(func() {
				defer c.Close()
				if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					do(c.(*net.TCPConn), req)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
}

func listen(t testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// answer is a right answer's text, with what is between id and body at choice.
func answer(id, framing, body string) string {
	return "HTTP/1.1 200 OK\r\nX-Request-Id: " + id + "\r\n" + framing + "\r\n\r\n" + body
}

func ok(req *http.Request) string {
	return answer(req.Header.Get("X-Request-Id"), "Content-Length: 4", "fine")
}

func writes(text func(req *http.Request) string) behaviour {
	return func(c *net.TCPConn, req *http.Request) { io.WriteString(c, text(req)) }
}

// viaHTTP answers as a right net/http server does.
func viaHTTP(c *net.TCPConn, req *http.Request) {
	var body strings.Builder
	w := &recorder{header: http.Header{}, body: &body}
	right{}.ServeHTTP(w, req)
	io.WriteString(c, answer(req.Header.Get("X-Request-Id"), fmt.Sprintf("Content-Length: %d", body.Len()), body.String()))
}

type recorder struct {
	header http.Header
	body   io.Writer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Flush()                      {}

// resets makes the close that follows send RST: it is what a crash looks like.
func resets(c *net.TCPConn) { c.SetLinger(0) }

func stall(c *net.TCPConn) { io.Copy(io.Discard, c) } // until the client gives up

func id(req *http.Request) string { return req.Header.Get("X-Request-Id") }

func TestEveryFailureHasItsClass(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind    Kind
		bad     behaviour
		always  bool          // bad to every connection, not just to every other
		ms      int           // of slow and stream. Default 20
		timeout time.Duration // default 30 s
		want    Class
		detail  string
	}{
		"RST instead of an answer": {bad: func(c *net.TCPConn, _ *http.Request) { resets(c) },
			want: Reset, detail: "waiting for the answer"},
		"RST while uploading": {kind: Upload, bad: func(c *net.TCPConn, _ *http.Request) { resets(c) }, want: Reset},
		"closed while uploading": {kind: Upload, bad: func(*net.TCPConn, *http.Request) {},
			want: Reset},
		"EOF instead of an answer": {bad: func(*net.TCPConn, *http.Request) {},
			want: EOF, detail: "waiting for the answer"},
		"cut in the header": {bad: writes(func(r *http.Request) string { return ok(r)[:20] }),
			want: Cut, detail: "header"},
		"cut after an interim answer": {bad: writes(func(*http.Request) string { return "HTTP/1.1 103 Early Hints\r\n\r\n" }),
			want: Cut, detail: "header"},
		"cut in the body": {bad: writes(func(r *http.Request) string { return answer(id(r), "Content-Length: 4", "fin") }),
			want: Cut, detail: "after 3 bytes"},
		"cut in a chunk": {bad: writes(func(r *http.Request) string { return answer(id(r), "Transfer-Encoding: chunked", "4\r\nfi") }),
			want: Cut, detail: "after 2 bytes"},
		"cut before the last chunk": {bad: writes(func(r *http.Request) string {
			return answer(id(r), "Transfer-Encoding: chunked", "4\r\nfine\r\n")
		}), want: Cut, detail: "after 4 bytes"},
		"cut in a stream": {kind: Stream, bad: writes(func(r *http.Request) string {
			return answer(id(r), "Content-Length: 99999", strings.Repeat("x", 77777))
		}), want: Cut, detail: "after 77777 bytes"},
		"RST in the body": {bad: func(c *net.TCPConn, r *http.Request) {
			io.WriteString(c, answer(id(r), "Content-Length: 4", "fin"))
			resets(c)
		}, want: Cut, detail: "after 3 bytes"},
		"no answer": {bad: func(c *net.TCPConn, _ *http.Request) { stall(c) },
			always: true, timeout: 500 * time.Millisecond, want: Timeout},
		"503": {bad: writes(func(r *http.Request) string {
			return strings.Replace(answer(id(r), "Content-Length: 4", "busy"), "200 OK", "503 Service Unavailable", 1)
		}), want: Status, detail: `503 Service Unavailable: "busy"`},
		"400 without an id": {bad: writes(func(*http.Request) string {
			return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
		}), want: Status, detail: "400"},
		"redirect": {bad: writes(func(r *http.Request) string {
			return strings.Replace(answer(id(r), "Location: /\r\nContent-Length: 0", ""), "200 OK", "302 Found", 1)
		}), want: Status, detail: "302"},
		"too many interim answers": {bad: writes(func(*http.Request) string {
			return strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100)
		}), want: Body, detail: "interim"},
		"digest of other bytes": {kind: Upload, bad: func(c *net.TCPConn, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(c, answer(id(r), "Content-Length: 11", "65536 cafe\r\n"))
		}, want: Body, detail: "sent 65536 bytes with SHA-256"},
		"length of another body": {kind: Upload, bad: func(c *net.TCPConn, r *http.Request) {
			sum := sha256.New()
			io.Copy(sum, r.Body)
			text := fmt.Sprintf("65535 %x", sum.Sum(nil))
			io.WriteString(c, answer(id(r), fmt.Sprintf("Content-Length: %d", len(text)), text))
		}, want: Body, detail: "the answer says \"65535 "},
		"upload cut short by the server": {kind: Upload, bad: func(c *net.TCPConn, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 60000)
			rest := r.Body
			r.Body = io.NopCloser(strings.NewReader("other"))
			viaHTTP(c, r)
			io.Copy(io.Discard, rest)
		}, want: Body, detail: `"bytes\": 5`},
		"not HTTP": {bad: writes(func(*http.Request) string { return "220 mail.example ESMTP\r\n" }),
			want: Body, detail: "malformed"},
		"broken chunk": {bad: writes(func(r *http.Request) string {
			return answer(id(r), "Transfer-Encoding: chunked", "zz\r\nfine\r\n0\r\n\r\n")
		}), want: Body, detail: "invalid byte in chunk length"},
		"endless header": {bad: func(c *net.TCPConn, _ *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "X: "+strings.Repeat("x", 1000)+"\r\n")
			}
		}, want: Body, detail: "header longer than"},
		"no id": {bad: writes(func(*http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine" }),
			want: Body, detail: "without X-Request-Id"},
		"no length": {bad: writes(func(r *http.Request) string { return answer(id(r), "Connection: close", "fine") }),
			want: Body, detail: "can't be told"},
		"slow answer too soon": {kind: Slow, bad: writes(ok), always: true, ms: 20_000,
			want: Body, detail: "cut short"},
		"stream ends too soon": {kind: Stream, bad: writes(ok), always: true, ms: 20_000,
			want: Body, detail: "cut short"},
		"stream without a byte": {kind: Stream, bad: writes(func(r *http.Request) string { return answer(id(r), "Content-Length: 0", "") }), want: Body, detail: "empty"},
		"answered twice":        {bad: writes(func(r *http.Request) string { return ok(r) + ok(r) }), want: Duplicated, detail: "HTTP/1.1 200 OK"},
		"one byte too many":     {bad: writes(func(r *http.Request) string { return ok(r) + "!" }), want: Duplicated, detail: `"!"`},
		"two servers answer": {bad: func(c *net.TCPConn, r *http.Request) {
			io.WriteString(c, ok(r))
			io.WriteString(c, ok(r)) // a segment of its own
		}, want: Duplicated},
		"another request's answer": {bad: writes(func(r *http.Request) string { return answer(id(r)+"0", "Content-Length: 4", "fine") }),
			want: CrossTalk, detail: "answer to request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			good, want := behaviour(viaHTTP), Failures{}
			want[tc.want] = 3
			if tc.always {
				good, want[tc.want] = tc.bad, 6
			}
			serveRaw(t, ln, tc.bad, good)
			cfg := quick(ln.Addr().String())
			cfg.Clients, cfg.MaxRequests = map[Kind]int{tc.kind: 1}, 6
			cfg.Timeout = cmp.Or(tc.timeout, cfg.Timeout)
			cfg.SlowMS, cfg.StreamMS = cmp.Or(tc.ms, cfg.SlowMS), cmp.Or(tc.ms, cfg.StreamMS)
			r := run(t, cfg)

			if r.Failures != want {
				t.Fatalf("failures: %v, want: %v\n%v", r.Failures, want, r)
			}
			if r.Started != 6 || r.OK != 6-want.Total() || r.ByKind[tc.kind].Failures != want {
				t.Errorf("counts are wrong:\n%v", r)
			}
			if err := r.Accounted(); err != nil {
				t.Error(err)
			}
			err := r.Check()
			if err == nil || !strings.Contains(err.Error(), tc.want.String()) || !strings.Contains(err.Error(), tc.detail) {
				t.Errorf("Check must name %q and %q, says:\n%v", tc.want, tc.detail, err)
			}
			for _, f := range r.Errors {
				if f.Class != tc.want || f.Kind != tc.kind || f.Remote != cfg.Addr || f.Local == "" || f.ID == "" || f.When.Before(f.Began) {
					t.Errorf("failure lacks something: %+v", f)
				}
			}
		})
	}
}

// A port that is bound and not listened on refuses, and nobody else can have it.
func TestRefusedForAMoment(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	socket := os.NewFile(uintptr(fd), "socket")
	defer socket.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	l := mustStart(t, quick(fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)))
	waitFor(t, l, "refusals", func(r Result) bool { return r.Failures[Refused] >= 30 })
	if err := syscall.Listen(fd, 128); err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(socket)
	if err != nil {
		t.Fatal(err)
	}
	serveRaw(t, ln, viaHTTP, viaHTTP)
	if err := l.WaitEach(within(t), 3); err != nil {
		t.Fatal(err)
	}
	r := l.Stop()
	if r.Failures[Refused] != r.Failures.Total() || len(r.Errors) != maxErrors {
		t.Errorf("want refusals only, the first %d listed:\n%v", maxErrors, r)
	}
	if err := r.Check(); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Check: %v", err)
	}
	if all := func(Failure) bool { return true }; r.excuse(all).Excused != 0 {
		t.Error("a refused request has no connection that could excuse it")
	}
}

func TestUnixSocketGone(t *testing.T) {
	t.Parallel()
	cfg := quick("unix:" + filepath.Join(t.TempDir(), "gone"))
	cfg.MaxRequests = 4
	if r := run(t, cfg); r.Failures[Refused] != 4 || r.Check() == nil {
		t.Errorf("want 4 refused:\n%v", r)
	}
}

// A server that ends a connection with RST when the whole answer is out takes
// nothing away. (For one that leaves it open see TestLeftOpen.)
func TestResetAfterTheAnswer(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	serveRaw(t, ln, func(c *net.TCPConn, r *http.Request) {
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"+ok(r))
		resets(c)
	}, viaHTTP)
	cfg := quick(ln.Addr().String())
	cfg.Clients, cfg.MaxRequests = map[Kind]int{New: 1}, 8
	if r := run(t, cfg); r.Check() != nil || r.LeftOpen != 0 {
		t.Errorf("want no failure:\n%v", r)
	}
}
