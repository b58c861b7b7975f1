package drain

import (
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pieces are what the fuzzer's clients send: requests, and what is not quite one.
var pieces = []string{
	"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
	"HEAD /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
	"POST /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
	"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
	"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"POST /early HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"GET /f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"GET /g HTTP/1.1\nHost: x\nX-Long: 1\n 2\n\n",
	"POST /h HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	"GET /i HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\r\n",
	"POST /j HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n1\r\na\r\n0\r\nT: t\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\n",
	"\r\n", "\n", "\r", " ", "G", "GET /", "POST /k HTTP/1.1\r\n", "HTTP/1.1\r\n", "Host: x\r\n", "X: y", "12345",
	"Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Expect: no\r\n",
	"X-Big: " + strings.Repeat("x", bufferSize) + "\r\n",
	"PUT /l HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("l", 5000),
}

// script is a sequence of pieces.
func script(texts ...string) (s []byte) {
	for _, text := range texts {
		i := slices.Index(pieces, text)
		if i < 0 {
			i = slices.IndexFunc(pieces, func(p string) bool { return strings.HasPrefix(p, text) })
		}
		s = append(s, byte(i))
	}
	return s
}

// A segment's byte is its length, and what is done before it is sent.
const (
	segmentMove = 0x40 // a generation comes, and the one before is drained
	segmentRace = 0x80 // without waiting until what was sent has been read
)

// FuzzMove sends what a script says, in segments, and the connection moves between
// them. What a plain net/http server answers, it must get.
func FuzzMove(f *testing.F) {
	every := func(n int, b byte) []byte { return slices.Repeat([]byte{b}, n) }
	for _, tcp := range []bool{false, true} {
		for i := range pieces {
			s := []byte{byte(i)}
			f.Add(append(s, script("GET /a")...), every(3, 7|segmentMove), tcp)
			f.Add(append(script("POST /c", "\r\n", "GET /a"), s...), every(40, 9|segmentMove|segmentRace), tcp)
		}
		for n := range byte(4) { // bytes that the server holds when it has answered
			first := byte(len(pieces[0])) + n
			f.Add(script("GET /a", "GET /a", "POST /c", "GET /a"), append([]byte{first}, every(20, 5|segmentMove)...), tcp)
			f.Add(script("POST /h", "\r\n", "GET /a"), append([]byte{first + 20}, every(20, 1|segmentMove)...), tcp)
		}
		f.Add(script("GET /a", "POST /k", "Host", "Content-Length", "\r\n", "12345", "GET /a"), every(40, 5|segmentMove), tcp)
		f.Add(script("POST /c", "\r\n", "\r\n", "\r\n", "GET /a"), every(80, 1|segmentMove), tcp)
		f.Add(script("POST /c", "\n", "\n", "G", "POST /d", "\r", "GET /f", "HEAD"), []byte{63, 14, 1 | segmentMove, 1, 1 | segmentMove, 2}, tcp)
		f.Add(script("POST /c", "\r\n", "\r\n", "\r\n"), every(80, 9|segmentMove|segmentRace), tcp)
		f.Add(script("GET /a", "HEAD", "POST /e", "GET /f", "GET /a", "GET /"), every(40, 33|segmentMove), tcp)
		f.Add(script("POST /k", "Host", "Transfer", "\r\n", "GET /a"), every(20, 30|segmentMove), tcp)
		f.Add(script("GET /a", "GET /", " ", "HTTP/1.1", "Host", "X-Big", "\r\n", "GET /a"), []byte{63, 63 | segmentMove, 63, 63 | segmentMove}, tcp)
	}
	logger := log.New(io.Discard, "", 0)
	f.Fuzz(func(t *testing.T, script, segments []byte, tcp bool) {
		var stream strings.Builder
		for _, p := range script[:min(len(script), 16)] {
			stream.WriteString(pieces[int(p)%len(pieces)])
		}
		sent := stream.String()
		network := "unix"
		if tcp {
			network = "tcp"
		}
		ln := listen(t, network)
		plain := &http.Server{Handler: describe(), ErrorLog: logger}
		served := inBackground(func() { _ = plain.Serve(ln) })
		want, wantReset := converse(t, ln.Addr(), sent, segments, func(byte) {})
		plain.Close()
		<-served

		r := newRelay(t, network)
		r.setup = func(srv *http.Server) { srv.ErrorLog = logger }
		r.start(describe())
		got, reset := converse(t, r.ln.Addr(), sent, segments, func(before byte) {
			if before&segmentRace == 0 {
				r.settled()
			}
			if g := r.gens[len(r.gens)-1]; before&segmentMove != 0 && len(r.gens) < 6 {
				r.start(describe())
				g.retire()
				if before&segmentRace == 0 {
					until(t, "it has moved", func() bool { return !g.waitsForRequest() })
				}
			}
		})
		// net/http closes after a 400 without having read all. TCP resets the connection
		// then, and what has not been sent yet is lost.
		lossy := tcp && (reset || wantReset)
		if got != want && !(lossy && (strings.HasPrefix(want, got) || strings.HasPrefix(got, want))) {
			t.Errorf("moved: sent\n%q\nreceived\n%q\nundisturbed:\n%q", sent, got, want)
		}
		r.gens[len(r.gens)-1].Drain(0)
		for _, g := range r.gens {
			<-g.Done()
			if rep := g.Report(); rep.Cut+rep.ClosedIdle != 0 {
				t.Errorf("%+v", rep)
			}
		}
	})
}

// describe answers with all that it has been asked.
func describe() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" { // answers before it has read
			io.WriteString(w, "early")
			return
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %q %v", r.Method, r.RequestURI, r.Proto, r.Host, b, err)
		for _, h := range []http.Header{r.Header, r.Trailer} {
			for _, k := range slices.Sorted(maps.Keys(h)) {
				fmt.Fprintf(w, " %s: %q", k, h[k])
			}
		}
	})
}

var date = regexp.MustCompile(`Date: [^\r]*`)

// ending is sent after each stream. Who ends with less than four bytes of a new
// connection's first request, or after line ends that were forgiven, gets a 400, but none
// if the connection has moved: there it has waited for those four bytes as if idle.
const ending = "\r\n\r\n\r\n\r\n"

// converse sends a stream in segments, and returns what comes back. What is sent to a
// server that has closed may be lost.
func converse(t *testing.T, addr net.Addr, sent string, segments []byte, before func(byte)) (received string, reset bool) {
	t.Helper()
	c := dial(t, addr)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	var answers []byte
	var err error
	// Read all the time: less is lost with a reset.
	read := inBackground(func() { answers, err = io.ReadAll(c) })
	for rest := sent; rest != ""; {
		b, n := byte(0), len(rest)
		if len(segments) > 0 {
			b, segments = segments[0], segments[1:]
			n = min(n, max(1, int(b%segmentMove)))
		}
		before(b)
		if _, err := io.WriteString(c, rest[:n]); err != nil {
			break
		}
		rest = rest[n:]
	}
	before(0)
	_, _ = io.WriteString(c, ending)
	_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	<-read
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v", answers, err)
	}
	c.Close()
	return date.ReplaceAllString(string(answers), "Date: today"), err != nil
}

// settled waits until the only connection's server has read all that was sent and wants
// more, or has closed it.
func (r *relay) settled() {
	r.t.Helper()
	until(r.t, "the server waits", func() bool {
		served, ins, outs := 0, 0, 0
		for _, g := range r.gens {
			in, out := g.Moved()
			served, ins, outs = served+g.Served(), ins+in, outs+out
			for _, c := range g.open() {
				c.mu.Lock()
				reading := c.reading
				c.mu.Unlock()
				if !reading || readable(c.Conn) {
					return false
				}
			}
		}
		return ins == outs && served == 1
	})
}

// waitsForRequest tells whether a connection does, or for the rest of one's header.
func (g *running) waitsForRequest() bool {
	for _, c := range g.open() {
		c.mu.Lock()
		waits := c.held.known
		c.mu.Unlock()
		if waits {
			return true
		}
	}
	return false
}
