package protocols_test

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Every event has a number, which all processes know: the clock's.
const event = 10 * time.Millisecond

func newest() int64 { return time.Now().UnixNano() / int64(event) }

//go:embed testdata/news.html
var page []byte

// others is what the tests need beside the example: a page that reads the news, and a
// protocol without frames, in which a line is answered by the worker's name.
func others(draining context.Context, who string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(rw http.ResponseWriter, r *http.Request) { rw.Write(page) })
	mux.HandleFunc("/lines", func(rw http.ResponseWriter, r *http.Request) {
		nc, rest, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			panic(err)
		}
		defer nc.Close()
		fmt.Fprintln(nc, who)
		stop := context.AfterFunc(draining, func() { fmt.Fprintln(nc, "draining") })
		defer stop()
		for {
			if _, err := rest.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprintln(nc, who)
		}
	})
	return mux
}

// report is what the page has seen.
type report struct {
	Opened, Seen  int
	Missed, Twice int
	Codes         []int // that sockets were closed with
	Unclean       int   // sockets that ended without a close frame
}

// TestBrowser: a page in a real browser is told by every worker that leaves, comes again,
// and has missed nothing.
func TestBrowser(t *testing.T) {
	t.Parallel()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (Debian: apt-get install chromium)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reports := make(chan report)
	to := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var is report
		if err := json.NewDecoder(r.Body).Decode(&is); err != nil {
			t.Errorf("a report: %v", err)
		}
		select {
		case reports <- is:
		case <-ctx.Done():
		}
	}))
	defer to.Close()
	s := start(t, "websocket", "http=tcp://127.0.0.1:0")
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "http://"+s.addr+"/?report="+to.URL)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends all of its processes
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { cancel(); <-ended }()
	var last report
	until := func(ok func(r report) bool) {
		t.Helper()
		for late := time.After(patience); !ok(last); {
			select {
			case last = <-reports:
			case <-ended:
				t.Fatalf("the browser has ended:\n%s", errs.Bytes())
			case <-late:
				t.Fatalf("the page has come no further than %+v\n%s", last, errs.Bytes())
			}
		}
	}
	until(func(r report) bool { return r.Seen > 0 })
	const upgrades = 3
	for range upgrades {
		from, before := s.mark(), last
		s.upgrade()
		if _, _, _, cut := s.drained(from); cut > 0 {
			t.Errorf("%d were cut", cut)
		}
		until(func(r report) bool { return r.Opened > before.Opened && r.Seen > before.Seen })
	}
	end := last
	until(func(r report) bool { return r.Seen > end.Seen+10 })
	t.Logf("%+v", last)
	if last.Missed > 0 || last.Twice > 0 || last.Unclean > 0 || len(last.Codes) < upgrades {
		t.Errorf("the page: %+v", last)
	}
	for _, code := range last.Codes {
		if code != int(websocket.StatusServiceRestart) {
			t.Errorf("a socket was closed with %d", code)
		}
	}
	cancel()
	<-ended
	s.stop()
	s.clean()
}

// upgraded makes a connection of HTTP into another, by hand.
func upgraded(t *testing.T, addr, path, header string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, addr, header)
	return c, bufio.NewReader(c)
}

// webSocket is one that reads frames (RFC 6455, section 5.2) and answers none.
func webSocket(t *testing.T, addr string) (next func() (opcode byte, payload []byte, err error)) {
	t.Helper()
	_, r := upgraded(t, addr, "/news", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	return func() (byte, []byte, error) {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 0, nil, err
		}
		payload := make([]byte, head[1]) // short, and a server's are not masked
		_, err := io.ReadFull(r, payload)
		return head[0] & 0xf, payload, err
	}
}

// TestHijacked: connections that handlers have taken over are counted and told, and a drain
// waits for them until its timeout, when those are cut that have not gone.
func TestHijacked(t *testing.T) {
	t.Parallel()
	s := start(t, "websocket", "http=tcp://127.0.0.1:0", envTimeout+"=1500ms")
	line := func(r *bufio.Reader, want string) {
		t.Helper()
		if got, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%q, %v, want %s", got, err, want)
		}
	}
	goes, goesReader := upgraded(t, s.addr, "/lines", "")
	stays, staysReader := upgraded(t, s.addr, "/lines", "")
	line(goesReader, "generation=1 ")
	line(staysReader, "generation=1 ")
	next := webSocket(t, s.addr)
	if op, _, err := next(); op != 1 || err != nil {
		t.Fatalf("opcode %d, %v", op, err)
	}
	from := s.mark()
	s.upgrade()
	// All are told.
	line(goesReader, "draining")
	line(staysReader, "draining")
	for op := byte(1); op != 8; {
		var payload []byte
		var err error
		if op, payload, err = next(); err != nil {
			t.Fatalf("it was not told: %v", err)
		}
		if op == 8 && string(payload) != "\x03\xf4restart" { // 1012
			t.Errorf("it was told %q", payload)
		}
	}
	// They work as long as the drain lasts,
	for conn, r := range map[net.Conn]*bufio.Reader{goes: goesReader, stays: staysReader} {
		fmt.Fprintln(conn)
		line(r, "generation=1 ")
	}
	goes.Close()
	// and no longer: one of the lines, and the socket whose client has not said good-bye.
	if b, err := io.ReadAll(staysReader); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("at the end: %q, %v", b, err)
	}
	if _, _, err := next(); err == nil {
		t.Error("frames after the close frame")
	}
	open, finished, _, cut := s.drained(from)
	if open != 3 || cut != 2 || finished != 1 {
		t.Errorf("%d connections were open, %d cut, %d finished, not 3, 2, 1", open, cut, finished)
	}
	if n := s.count(`msg="connection cut"`, "state=hijacked"); n != 2 {
		t.Errorf("%d are named", n)
	}
	s.stop()
}
