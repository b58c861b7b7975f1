package handover_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/procs"
)

// A row is what a connection is in the middle of when its worker drains.
type row struct {
	name    string
	fresh   bool     // no request has been answered on it
	before  string   // sent before the upgrade, and what follows a | some time later
	after   string   // sent when the next generation serves
	answers []string // "METHOD by": 1 or 2 is the generation that must have answered, ? either
	conf    bool     // only configuredServer can do it
}

// rows, in which the requests of a connection say 1, 2 and so on as their id.
var rows = []row{
	{"idle", false, "", request("GET", "/", 1, "\r\n"), []string{"GET 2"}, false},
	{"half a method", false, "GE", request("GET", "/", 1, "\r\n")[2:], []string{"GET 2"}, false},
	{"half a line", false, "GET / HT", request("GET", "/", 1, "\r\n")[8:], []string{"GET 2"}, false},
	{"half a header", false, request("GET", "/", 1, "X-A: "), "b\r\n\r\n", []string{"GET 2"}, false},
	{"all but one byte", false, request("GET", "/", 1, "\r"), "\n", []string{"GET 2"}, false},
	{"half a HEAD", false, "HEAD /", request("HEAD", "/", 1, "\r\n")[6:], []string{"HEAD 2"}, false},
	{"half a POST", false, "POST /", request("POST", "/upload", 1, "Content-Length: 3\r\n\r\nabc")[6:], []string{"POST 2"}, false},
	{"HTTP/1.0", false, "GET / HTTP/1.0\r\nX-Request-Id: 1\r\n", "Connection: keep-alive\r\n\r\n", []string{"GET 2"}, false},
	{"in flight", false, request("GET", "/slow?ms=1500", 1, "\r\n"), "", []string{"GET 1"}, false},
	{"in flight, and one behind it", false, request("GET", "/slow?ms=1500", 1, "\r\n"),
		request("GET", "/", 2, "\r\n"), []string{"GET 1", "GET ?"}, false},
	{"pipelined", false, request("GET", "/slow?ms=1500", 1, "\r\n") + request("HEAD", "/", 2, "\r\n") + request("GET", "/", 3, "\r\n"),
		"", []string{"GET 1", "HEAD ?", "GET ?"}, false},
	{"half a body", false, request("POST", "/upload", 1, "Content-Length: 10\r\n\r\n12345"),
		"67890" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}, false},
	{"half a chunk", false, request("POST", "/upload", 1, "Transfer-Encoding: chunked\r\n\r\n5\r\n123"),
		"45\r\n0\r\n\r\n" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}, false},
	{"100-continue", false, request("POST", "/upload", 1, "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"),
		"abc" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}, false},
	{"a header in two segments", false, "GET / HTTP/1.1\r\nX-A|: b\r\nX-Request-Id: 1\r\n", "Host: x\r\n\r\n", []string{"GET 2"}, false},
	{"a line end after a POST", false, request("POST", "/upload", 1, "Content-Length: 1\r\n\r\na\r\n"),
		request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET 2"}, false},
	{"the next line with a request", false, request("GET", "/slow?ms=1500", 1, "\r\n") + "GET / HT",
		request("GET", "/", 2, "\r\n")[8:], []string{"GET 1", "GET ?"}, false},
	{"an early answer", false, request("POST", "/early", 1, "Content-Length: 10\r\n\r\n12345"),
		"67890" + request("GET", "/", 2, "\r\n"), []string{"POST 1", "GET ?"}, true},
	{"a file", false, "", request("GET", "/file", 1, "\r\n"), []string{"GET 2"}, true},
	// The last one, since nobody knows when and by whom it is accepted.
	{"no byte yet", true, "", request("GET", "/", 1, "\r\n"), []string{"GET ?"}, false},
}

// request is one up to the middle of its header, where rest goes on.
func request(method, path string, id int, rest string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n%s", method, path, id, rest)
}

// TestRowsOverUpgrade: whatever a client is in the middle of when a worker drains, each of
// its requests is answered once, in order, on the same connection, which stays open; where
// nothing was being answered, by the next generation.
func TestRowsOverUpgrade(t *testing.T) {
	configured := "TEST_APP=configured"
	for name, start := range map[string]func(*testing.T) *service{
		"workers": func(t *testing.T) *service { return startService(t, 2) },
		"workers configured tcp6": func(t *testing.T) *service {
			return startService(t, 2, configured, "TEST_LISTEN=http=tcp6://[::1]:0")
		},
		"workers configured unix": func(t *testing.T) *service {
			path := filepath.Join(t.TempDir(), "http")
			s := startService(t, 2, configured, "TEST_LISTEN=http=unix://"+path)
			s.addr = "unix:" + path
			return s
		},
		"solo configured": func(t *testing.T) *service { return startSolo(t, "tcp://127.0.0.1:0", configured) },
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "tcp6") && !hasIPv6() {
				t.Skip("no IPv6")
			}
			rowsOverUpgrade(t, start(t), strings.Contains(name, "configured"))
		})
	}
}

func rowsOverUpgrade(t *testing.T, s *service, configured bool) {
	var conns []rowConn
	for _, r := range rows {
		if r.conf && !configured {
			continue
		}
		before := inodes(t, s.workers())
		c := rowConn{row: r, keeper: connect(t, s.addr)}
		if !r.fresh {
			var err error
			if c.first, err = c.askAll(); err != nil {
				t.Fatal(err)
			}
			c.inode = only(t, minus(inodes(t, s.workers()), before))
		}
		conns = append(conns, c)
	}
	for i := range 2 {
		for _, c := range conns {
			if parts := strings.Split(c.before, "|"); i < len(parts) {
				if _, err := io.WriteString(c, parts[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	old := s.workers()
	s.upgrade()
	until(t, 30*time.Second, func() string { // has moved
		now := inodes(t, minus(s.workers(), old))
		for _, c := range conns {
			if strings.HasSuffix(c.answers[len(c.answers)-1], " 2") && !slices.Contains(now, c.inode) {
				return c.name + " has not moved"
			}
		}
		return ""
	})
	for _, c := range conns {
		if _, err := io.WriteString(c, c.after); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range conns {
		for n, want := range c.answers {
			method, by, _ := strings.Cut(want, " ")
			if err := c.answer(method, fmt.Sprint(n+1), by); err != nil {
				t.Errorf("%s: answer %d: %v", c.name, n+1, err)
			}
		}
	}
	for _, c := range conns { // and nothing else has come
		h, err := c.askAll()
		if err != nil || c.r.Buffered() > 0 {
			t.Errorf("%s: at the end: %v, %v", c.name, h, err)
		}
		if c.first != nil && h.Get("X-Options") != c.first.Get("X-Options") {
			t.Errorf("%s: options of the socket: %q, were %q", c.name, h.Get("X-Options"), c.first.Get("X-Options"))
		}
		c.Close() // a stop would wait for it
	}
	s.stop()
	if bad := match(s.tail(1<<20), `(.*level=(?:WARN|ERROR).*)`); bad != "" {
		t.Error(bad)
	}
}

// rowConn is a connection in the middle of something.
type rowConn struct {
	row
	keeper
	inode string      // the server's socket
	first http.Header // of the first answer, if it is not fresh
}

// inodes are those of the sockets that processes have, which may end meanwhile.
func inodes(t testing.TB, pids []int) (list []string) {
	t.Helper()
	for _, pid := range pids {
		fds, err := procs.FDs(pid)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, target := range fds {
			if strings.HasPrefix(target, "socket:") {
				list = append(list, target)
			}
		}
	}
	return list
}

// minus is what is in a and not in b.
func minus[T comparable](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(a), func(v T) bool { return slices.Contains(b, v) })
}

func only(t testing.TB, list []string) string {
	t.Helper()
	if len(list) != 1 {
		t.Fatalf("sockets %q, not one", list)
	}
	return list[0]
}

func hasIPv6() bool {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		ln.Close()
	}
	return err == nil
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
	return k.checkHooks(resp.Header)
}
