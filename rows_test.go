package handover_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest"
)

// A row is what a connection is in the middle of when its worker drains.
type row struct {
	name    string
	fresh   bool     // no request has been answered on it
	before  string   // sent before the upgrade
	after   string   // sent when the next generation serves
	answers []string // "METHOD by": 1 or 2 is the generation that must have answered, ? either
}

// rows, in which the requests of a connection say 1, 2 and so on as their id.
var rows = []row{
	{"idle", false, "", request("GET", "/", 1, "\r\n"), []string{"GET 2"}},
	{"no byte yet", true, "", request("GET", "/", 1, "\r\n"), []string{"GET ?"}}, // who knows who accepts it
	{"half a method", false, "GE", request("GET", "/", 1, "\r\n")[2:], []string{"GET 2"}},
	{"half a line", false, "GET / HT", request("GET", "/", 1, "\r\n")[8:], []string{"GET 2"}},
	{"half a header", false, request("GET", "/", 1, "X-A: "), "b\r\n\r\n", []string{"GET 2"}},
	{"all but one byte", false, request("GET", "/", 1, "\r"), "\n", []string{"GET 2"}},
	{"half a HEAD", false, "HEAD /", request("HEAD", "/", 1, "\r\n")[6:], []string{"HEAD 2"}},
	{"half a POST", false, "POST /", request("POST", "/upload", 1, "Content-Length: 3\r\n\r\nabc")[6:], []string{"POST 2"}},
	{"HTTP/1.0", false, "GET / HTTP/1.0\r\nX-Request-Id: 1\r\n", "Connection: keep-alive\r\n\r\n", []string{"GET 2"}},
	{"in flight", false, request("GET", "/slow?ms=1500", 1, "\r\n"), "", []string{"GET 1"}},
	{"in flight, and one behind it", false, request("GET", "/slow?ms=1500", 1, "\r\n"),
		request("GET", "/", 2, "\r\n"), []string{"GET 1", "GET ?"}},
	{"pipelined", false, request("GET", "/slow?ms=1500", 1, "\r\n") + request("HEAD", "/", 2, "\r\n") + request("GET", "/", 3, "\r\n"),
		"", []string{"GET 1", "HEAD ?", "GET ?"}},
	{"half a body", false, request("POST", "/upload", 1, "Content-Length: 10\r\n\r\n12345"),
		"67890" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}},
	{"half a chunk", false, request("POST", "/upload", 1, "Transfer-Encoding: chunked\r\n\r\n5\r\n123"),
		"45\r\n0\r\n\r\n" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}},
	{"100-continue", false, request("POST", "/upload", 1, "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"),
		"abc" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}},
}

// request is one up to the middle of its header, where rest goes on.
func request(method, path string, id int, rest string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n%s", method, path, id, rest)
}

// TestRowsOverUpgrade: whatever a client is in the middle of when a worker drains, each of
// its requests is answered once, in order, on the same connection, which stays open; where
// nothing was being answered, by the next generation.
func TestRowsOverUpgrade(t *testing.T) {
	s := startService(t, 2)
	var conns []keeper
	for _, r := range rows {
		k := connect(t, s.addr)
		if !r.fresh {
			if _, err := k.ask(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(k, r.before); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, k)
	}
	old := s.workers()
	s.upgrade()
	until(t, 30*time.Second, func() string { // has moved
		peers := map[string]bool{}
		for _, pid := range s.workers() {
			if slices.Contains(old, pid) {
				continue
			}
			of, err := draintest.Peers(pid)
			if err != nil {
				return err.Error()
			}
			maps.Copy(peers, of)
		}
		for i, r := range rows {
			if strings.HasSuffix(r.answers[0], " 2") && !peers[conns[i].LocalAddr().String()] {
				return r.name + " has not moved"
			}
		}
		return ""
	})
	for i, r := range rows {
		if _, err := io.WriteString(conns[i], r.after); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
	}
	for i, r := range rows {
		for n, want := range r.answers {
			method, by, _ := strings.Cut(want, " ")
			if err := conns[i].answer(method, fmt.Sprint(n+1), by); err != nil {
				t.Errorf("%s: answer %d: %v", r.name, n+1, err)
			}
		}
	}
	for i, r := range rows { // and nothing else has come
		if who, err := conns[i].ask(); err != nil || conns[i].r.Buffered() > 0 {
			t.Errorf("%s: at the end: %q, %v", r.name, who, err)
		}
		conns[i].Close() // a stop would wait for it
	}
	s.stop()
}

// answer reads the answer to a request.
func (k keeper) answer(method, id, by string) error {
	_ = k.SetDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(k.r, &http.Request{Method: method})
	for err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(k.r, &http.Request{Method: method})
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	who := resp.Header.Get("X-Worker")
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || resp.Close:
		return fmt.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
	case resp.Header.Get("X-Request-Id") != id:
		return fmt.Errorf("it is that of request %q", resp.Header.Get("X-Request-Id"))
	case by != "?" && !has("generation="+by+" ")(who):
		return fmt.Errorf("%s has answered, not generation %s", who, by)
	}
	return nil
}
