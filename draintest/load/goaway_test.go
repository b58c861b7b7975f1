package load

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// More frames of RFC 9113: all is served, stream 1 was looked at, it is reset.
const (
	leaves  = "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00"
	looked1 = "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"
	reset1  = "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08"

	oneStream = "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01" // SETTINGS: one at a time
	answers   = "\x00\x00\x01\x01\x05"                                         // then a stream, and 200: no more will come
)

// A framed is a server's end of a connection of HTTP/2, which reads frame by frame.
type framed struct {
	net.Conn
	br *bufio.Reader
}

// newFramed reads the preface.
func newFramed(c net.Conn) *framed {
	f := &framed{c, bufio.NewReader(c)}
	f.br.Discard(preface)
	io.WriteString(f, settings)
	return f
}

// asked returns the stream of the next request, or 0 when there is none.
func (f *framed) asked() uint32 {
	head := f.next(func(head []byte) bool { return head[3] == frameHeaders })
	return binary.BigEndian.Uint32(head[5:])
}

// settled waits until the client has taken in the server's settings (section 6.5.3).
func (f *framed) settled() {
	const settings, ack = 4, 1
	f.next(func(head []byte) bool { return head[3] == settings && head[4] == ack })
}

// next returns the head of the next frame that is wanted, and zeros when there is none.
func (f *framed) next(wanted func(head []byte) bool) []byte {
	for head := make([]byte, frameHead); ; {
		if _, err := io.ReadFull(f.br, head); err != nil {
			return make([]byte, frameHead)
		}
		f.br.Discard(int(head[1])<<8 | int(head[2]))
		if wanted(head) {
			return head
		}
	}
}

// TestHTTP2WronglyRefused: what was sent before the client could know that the server leaves,
// and is refused, is a failure, whatever else the server says, and is not sent again.
func TestHTTP2WronglyRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		says string // when it has two requests
		want Failures
	}{
		"both":                 {goAway, Failures{GoneAway: 2}},
		"the second":           {looked1 + reset1, Failures{GoneAway: 1, Reset: 1}},
		"in the end":           {leaves + goAway, Failures{GoneAway: 2}},
		"the second, then all": {leaves + looked1 + goAway, Failures{GoneAway: 2}},
		"taken back":           {goAway + leaves, Failures{GoneAway: 2}},
		"the second, back":     {looked1 + leaves + reset1, Failures{GoneAway: 1, Reset: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			var asked atomic.Int32
			serveBytes(t, ln, func(c net.Conn) {
				f := newFramed(c)
				for n := 1; f.asked() != 0; n++ {
					asked.Add(1)
					if n == 2 {
						io.WriteString(f, tc.says)
					}
				}
			})
			for _, kind := range []Kind{HTTP2, GRPC} {
				asked.Store(0)
				cfg := Config{Addr: ln.Addr().String(), Clients: map[Kind]int{kind: 1}, Rate: 1000, MaxRequests: 2}
				r := run(t, cfg)
				if r.Failures != tc.want || asked.Load() != 2 || r.Accounted() != nil {
					t.Errorf("%v: %d were sent, want 2, and %v:\n%v", kind, asked.Load(), tc.want, r)
				}
			}
		})
	}
}

// TestHTTP2Begun: net/http begins a stream on a connection on which it has read a GOAWAY, if it
// was about to. Is that refused, it may be sent elsewhere; is it dropped, that is a failure.
func TestHTTP2Begun(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, then string
		unsent      bool
	}{
		"refused":          {leaves, goAway, true},
		"refused at once":  {goAway, goAway, true},
		"dropped":          {leaves, "", false},
		"a stream's reset": {leaves, reset1, false},
		"refused stream":   {leaves, refused, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, settled, about, streams := listen(t), make(chan struct{}), make(chan struct{}), make(chan uint32, 1)
			serveBytes(t, ln, func(c net.Conn) {
				f := newFramed(c)
				f.settled()
				close(settled)
				<-about
				io.WriteString(f, tc.first)
				streams <- f.asked()
				io.WriteString(f, tc.then)
			})
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c, err := newH2Conn(conn, time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			<-settled // else what the trace holds up is needed to read more
			var once sync.Once
			ctx := httptrace.WithClientTrace(within(t), &httptrace.ClientTrace{WroteHeaderField: func(string, []string) {
				once.Do(func() {
					close(about)
					<-c.wire.over // the GOAWAY was read
				})
			}})
			resp, err := c.cc.RoundTrip(must(http.NewRequestWithContext(ctx, "GET", "http://x/", nil)))
			if err == nil {
				resp.Body.Close()
				t.Fatal("there was an answer")
			}
			if got := c.unsent(err, true, 1); got != tc.unsent {
				t.Errorf("unsent %t: %v", got, err)
			}
			c.cc.Close()
			if n := <-streams; n != 1 {
				t.Error("it was not sent")
			}
		})
	}
}

// TestHTTP2Unsent: a request that waits for its turn on one connection after the other, each of
// which serves others, and ends in order, has not failed. One that can't be sent on any has.
func TestHTTP2Unsent(t *testing.T) {
	t.Parallel()
	const n = 100
	for _, serves := range []bool{true, false} {
		ln, begun := listen(t), make(chan struct{})
		serveBytes(t, ln, func(c net.Conn) {
			io.WriteString(c, oneStream) // most of the client's requests will have to wait
			f := newFramed(c)
			first := f.asked()
			<-begun
			io.WriteString(f, leaves)
			for id := first; serves && id != 0; id = f.asked() { // also those that were on their way
				f.Write(append(binary.BigEndian.AppendUint32([]byte(answers), id), 0x88))
			}
		})
		l := mustStart(t, Config{Addr: ln.Addr().String(), Clients: map[Kind]int{HTTP2: 1}, Rate: 1000, MaxRequests: n, Plain: true})
		for l.Snapshot().Started < n { // which nobody is told of
			<-time.After(time.Millisecond)
		}
		close(begun)
		<-l.Done()
		r := l.Stop()
		if serves && (r.OK != n || r.ExceptIdle().Check() != nil) || !serves && r.Failures.Total() == 0 {
			t.Errorf("it serves: %t\n%v", serves, r)
		}
		t.Logf("%d connections", r.ClosedIdle)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
