//go:build linux

package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMay is who may do what.
func TestMay(t *testing.T) {
	t.Parallel()
	for _, uid := range []int{0, 1000, 65534} {
		for _, readers := range []bool{false, true} {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "get", ""} {
				want := ""
				reads := method == "GET" || method == "HEAD"
				switch {
				case uid != 65534, readers && reads:
				case readers:
					want = "user 65534 may only read here, not act: only user 1000 and root may"
				default:
					want = "user 65534 may not control this service, only user 1000 and root may"
				}
				got := ""
				if err := may(uid, 1000, readers, method); err != nil {
					got = err.Error()
				}
				if got != want {
					t.Errorf("%d, %v, %s: %q", uid, readers, method, got)
				}
			}
		}
	}
}

// say sends text, and returns the status line of the answer.
func say(t *testing.T, path, text string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil && !strings.Contains(err.Error(), "broken pipe") {
		t.Error(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Errorf("%.50q: %v", text, err)
	}
	return strings.TrimSpace(line)
}

// TestHostile: what makes no sense is answered, and does nothing.
func TestHostile(t *testing.T) {
	t.Parallel()
	path := socket(t)
	f := &fake{wishes: make(chan Wish, 10), watchers: make(chan *Watcher, 10), status: func() (Status, error) { return status, nil }}
	serve(t, path, f)
	post := func(route, more string) string {
		return "POST " + route + " HTTP/1.1\r\nHost: handover\r\n" + more + "\r\n"
	}
	for text, want := range map[string]string{
		"garbage\r\n\r\n":                                   "HTTP/1.1 400 Bad Request",
		"GET /v1/status HTTP/1.1\r\n\r\n":                   "HTTP/1.1 400 Bad Request: missing required Host header",
		"GET /v1/status HTTP/9.9\r\nHost: handover\r\n\r\n": "HTTP/1.1 505 HTTP Version Not Supported: unsupported protocol version",
		"GET / HTTP/1.1\r\nHost: handover\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n": "HTTP/1.1 431 Request Header Fields Too Large",
		post("/v1/nothing", ""):                             "HTTP/1.1 404 Not Found",
		post("/v1/status", ""):                              "HTTP/1.1 405 Method Not Allowed",
		post("/v1/restart?worker=%zz", ""):                  "HTTP/1.1 400 Bad Request",
		post("/v1/restart?a;b", ""):                         "HTTP/1.1 400 Bad Request",
		post("/v1/restart", "Content-Length: 2\r\n") + "{}": "HTTP/1.1 400 Bad Request",
		post("/v1/restart", "Content-Length: -1\r\n"):       "HTTP/1.1 400 Bad Request",
		post("/v1/restart", "Content-Length: 99999999999\r\n") + strings.Repeat("x", 1<<20): "HTTP/1.1 400 Bad Request",
		post("/v1/restart", "Transfer-Encoding: chunked\r\n") + "2\r\n{}\r\n0\r\n\r\n":      "HTTP/1.1 400 Bad Request",
		post("/v1/restart", "Content-Length: 5\r\nExpect: 100-continue\r\n"):                "HTTP/1.1 400 Bad Request",
		post("/v1/upgrade", "Content-Length: 2\r\n") + "{}":                                 "HTTP/1.1 400 Bad Request",
		post("/v1/restart", "") + post("/v1/restart", ""):                                   "HTTP/1.1 400 Bad Request", // what is behind it would be lost
	} {
		if got := say(t, path, text); got != want {
			t.Errorf("%.100q: %s, not %s", text, got, want)
		}
	}
	if len(f.wishes) > 0 {
		t.Errorf("%+v was asked for", <-f.wishes)
	}
	if _, _, err := NewClient(path).Status(within(t)); err != nil {
		t.Error(err)
	}
}

// TestTooMany: who comes when there are enough is told so, at once, and those who are
// there are answered.
func TestTooMany(t *testing.T) {
	t.Parallel()
	path := socket(t)
	f := &fake{wishes: make(chan Wish, 2*maxStreams), watchers: make(chan *Watcher, 2*maxStreams), status: func() (Status, error) { return status, nil }}
	serve(t, path, f)

	// Streams.
	var all sync.WaitGroup
	var watchers []*Watcher
	for range maxStreams {
		all.Go(func() {
			if last, err := NewClient(path).Act(within(t), Wish{Verb: Restart}, nil); err != nil || last.Result != Done {
				t.Errorf("%+v, %v", last, err)
			}
		})
		watchers = append(watchers, <-f.watchers)
	}
	req := "POST /v1/restart HTTP/1.1\r\nHost: handover\r\n\r\n"
	if got := say(t, path, req); got != "HTTP/1.1 503 Service Unavailable" {
		t.Error(got)
	}
	if _, _, err := NewClient(path).Status(within(t)); err != nil {
		t.Error(err)
	}
	for _, w := range watchers {
		w.End(Event{Result: Done})
	}
	all.Wait()
	if got := say(t, path, req); got != "HTTP/1.1 200 OK" {
		t.Error(got)
	}
	(<-f.watchers).End(Event{Result: Done})

	// Connections that say nothing.
	var idle []net.Conn
	for range maxConns {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	get := "GET /v1/status HTTP/1.1\r\nHost: handover\r\n\r\n"
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, get)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf(`{"error":"%d connections are open already: close some"}`+"\n", maxConns); resp.StatusCode != 503 ||
		resp.Header.Get("Retry-After") != retryBusy || string(body) != want || err != nil {
		t.Errorf("%s %q, %v", resp.Status, body, err)
	}
	for _, c := range idle {
		c.Close()
	}
	if _, _, err := NewClient(path).Status(within(t)); err != nil { // which tries again
		t.Error(err)
	}
}

// TestBusyEnds: a client does not wait for ever until it is its turn.
func TestBusyEnds(t *testing.T) {
	t.Parallel()
	path := socket(t)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Retry-After", retryBusy)
		refuse(w, http.StatusServiceUnavailable, errors.New("too many"))
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	defer func() { srv.Close(); <-served }()
	if _, _, err := NewClient(path).Status(within(t)); !errors.Is(err, ErrRefused) || asked != busyTries+1 {
		t.Errorf("%v after %d times", err, asked)
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, _, err := NewClient(path).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestSlowRequest: who does not come to the end of a request is not waited for for ever.
func TestSlowRequest(t *testing.T) {
	t.Parallel()
	path := socket(t)
	s := serve(t, path, &fake{})
	if s.http.ReadHeaderTimeout != requestTime || s.http.ReadTimeout != requestTime || s.http.WriteTimeout != answerTime || s.http.MaxHeaderBytes != maxHeader {
		t.Errorf("%+v", &s.http)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /v1/status HTTP/1.1\r\nHost")
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
}
