package drain

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Server is a server of HTTP/2, in plaintext too.
func h2Server(h http.Handler) *http.Server {
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

// h2Client speaks HTTP/2 frame by frame, and does what it is told to only.
type h2Client struct {
	t *testing.T
	net.Conn
	*http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
}

func newH2Client(t *testing.T, nc net.Conn) *h2Client {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	c := &h2Client{t: t, Conn: nc, Framer: http2.NewFramer(nc, nc)}
	c.enc = hpack.NewEncoder(&c.block)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	// With net.Pipe nobody writes before the other end reads.
	begun := inBackground(func() {
		io.WriteString(nc, http2.ClientPreface)
		c.WriteSettings()
	})
	next[*http2.SettingsFrame](c)
	<-begun
	return c
}

// request opens a stream. end: without a body.
func (c *h2Client) request(stream uint32, path string, end bool) {
	c.t.Helper()
	c.block.Reset()
	for _, f := range []string{":method POST", ":scheme http", ":authority x", ":path " + path} {
		name, value, _ := strings.Cut(f, " ")
		c.enc.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	if err := c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end,
	}); err != nil {
		c.t.Error(err)
	}
}

// next reads the next frame of a kind. What says nothing is passed over.
func next[F http2.Frame](c *h2Client) (f F) {
	c.t.Helper()
	for {
		got, err := c.ReadFrame()
		if err != nil {
			c.t.Errorf("no %T: %v", f, err)
			return f
		}
		if f, ok := got.(F); ok {
			return f
		}
		switch got.(type) {
		case *http2.SettingsFrame, *http2.WindowUpdateFrame:
		default:
			c.t.Errorf("%v, want %T", got.Header(), f)
			return f
		}
	}
}

// goAway reads a GOAWAY.
func (c *h2Client) goAway(last uint32) {
	c.t.Helper()
	if f := next[*http2.GoAwayFrame](c); f != nil && (f.LastStreamID != last || f.ErrCode != http2.ErrCodeNo) {
		c.t.Errorf("%v, want last stream %d", f, last)
	}
}

// leaving reads a GOAWAY that refuses nothing, and the PING behind it.
func (c *h2Client) leaving() [8]byte {
	c.t.Helper()
	c.goAway(lastStream)
	f := next[*http2.PingFrame](c)
	if f == nil || f.IsAck() {
		c.t.Fatalf("%v, want a PING", f)
	}
	return f.Data
}

// answer reads an answer of the site's.
func (c *h2Client) answer(stream uint32, body string) {
	c.t.Helper()
	if f := next[*http2.MetaHeadersFrame](c); f == nil || f.StreamID != stream || f.PseudoValue("status") != "200" {
		c.t.Errorf("answer %v, want one on stream %d", f, stream)
	}
	var got []byte
	for {
		f := next[*http2.DataFrame](c)
		if f == nil {
			return
		}
		got = append(got, f.Data()...)
		if f.StreamEnded() {
			break
		}
	}
	if string(got) != body {
		c.t.Errorf("answer %q, want %q", got, body)
	}
}

// ends reads the end of the connection.
func (c *h2Client) ends() {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		switch f.(type) {
		case *http2.SettingsFrame, *http2.WindowUpdateFrame:
			continue
		}
		if err != io.EOF {
			c.t.Errorf("%v, %v, want the end", f, err)
		}
		return
	}
}

// overNetworks runs a test in plaintext and with TLS.
func overNetworks(t *testing.T, test func(t *testing.T, s *site, d *running, c *h2Client)) {
	t.Parallel()
	for _, name := range []string{"h2c", "TLS", "h2c unix"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, cfg, network := newSite(), Config{}, "tcp"
			if name == "TLS" {
				cfg.TLS = serverTLS(t)
			}
			if name == "h2c unix" {
				network = "unix"
			}
			d := serve(t, h2Server(s), listen(t, network), cfg)
			var nc net.Conn = dial(t, d.ln.Addr()).Conn
			if cfg.TLS != nil {
				nc = tls.Client(nc, clientTLS("h2"))
			}
			c := newH2Client(t, nc)
			test(t, s, d, c)
		})
	}
}

// A request that is on its way when the drain begins is served, and so is each that comes
// before the client has answered the PING. The last GOAWAY names the last of them.
func TestTwoGoAways(t *testing.T) {
	overNetworks(t, func(t *testing.T, s *site, d *running, c *h2Client) {
		c.request(1, "/slow", true)
		<-s.entered
		c.request(3, "/upload", false)
		<-s.entered
		d.Drain(0)
		ping := c.leaving()
		c.request(5, "/", true)
		c.answer(5, "hello")
		c.WritePing(true, [8]byte{1}) // of nobody
		c.request(7, "/upload", false)
		<-s.entered
		c.WritePing(true, ping)
		c.goAway(7)
		c.WriteData(3, true, []byte("three"))
		c.answer(3, "three")
		close(s.release)
		c.answer(1, "slow")
		c.WriteData(7, true, []byte("seven"))
		c.answer(7, "seven")
		c.ends()
		c.Close()
		d.drained(1, 0, 0)
	})
}

// A connection on which nothing is asked ends after a round trip.
func TestGoAwayIdle(t *testing.T) {
	overNetworks(t, func(t *testing.T, s *site, d *running, c *h2Client) {
		c.request(1, "/", true)
		c.answer(1, "hello")
		d.Drain(0)
		c.WritePing(true, c.leaving())
		c.goAway(1)
		c.ends()
		c.Close()
		d.drained(1, 0, 0)
	})
}

// What has arrived and nobody has read throws away no answer: the client gets it, although
// it goes on sending.
func TestGoAwayWhileClientSends(t *testing.T) {
	overNetworks(t, func(t *testing.T, s *site, d *running, c *h2Client) {
		c.request(1, "/slow", true)
		<-s.entered
		d.Drain(0)
		c.WritePing(true, c.leaving())
		c.goAway(1)
		stop := make(chan struct{})
		sent := inBackground(func() {
			for !isClosed(stop) {
				if c.WriteWindowUpdate(0, 1) != nil {
					return
				}
			}
		})
		close(s.release)
		c.answer(1, "slow")
		c.ends()
		close(stop)
		<-sent
		c.Close()
		d.drained(1, 0, 0)
	})
}

// A connection that comes when the drain has begun is told at once, and its request served.
func TestGoAwayNewConnection(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		var cfg Config
		if secure {
			cfg.TLS = serverTLS(t)
		}
		s := newSite()
		d := serve(t, h2Server(s), listen(t, "tcp"), cfg)
		var nc net.Conn = dial(t, d.ln.Addr()).Conn
		<-d.Accepted()
		d.Drain(0)
		until(t, "nobody accepts", func() bool { return isClosed(d.Quiet()) })
		if secure {
			nc = tls.Client(nc, clientTLS("h2"))
		}
		c := newH2Client(t, nc)
		ping := c.leaving()
		c.request(1, "/", true)
		c.answer(1, "hello")
		c.WritePing(true, ping)
		c.goAway(1)
		c.ends()
		c.Close()
		d.drained(1, 0, 0)
	}
}

// pumped is a connection that is always read. A pipe has no buffer: who sleeps would hold up
// the server, and fake time, which does not pass while one waits for another's mutex.
type pumped struct {
	net.Conn
	chunks chan []byte
	rest   []byte
}

func pump(nc net.Conn) *pumped {
	p := &pumped{Conn: nc, chunks: make(chan []byte, 1000)}
	go func() {
		defer close(p.chunks)
		for {
			b := make([]byte, 4096)
			n, err := nc.Read(b)
			p.chunks <- b[:n]
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pumped) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		var ok bool
		if p.rest, ok = <-p.chunks; !ok {
			return 0, io.EOF
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// h2Fake serves a client of HTTP/2 in the fake time of a bubble.
func h2Fake(t *testing.T, cfg Config) (*running, *site, *h2Client) {
	s, ln := newSite(), newPipes()
	d := serve(t, h2Server(s), ln, cfg)
	return d, s, newH2Client(t, pump(ln.dial(t).Conn))
}

// What a client sends right after its answer to the PING, it had begun before.
func TestGoAwayOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := h2Fake(t, Config{})
		c.request(1, "/", true)
		c.answer(1, "hello")
		d.Drain(0)
		c.WritePing(true, c.leaving())
		time.Sleep(lastWordTime - 1)
		c.request(3, "/", true)
		c.answer(3, "hello")
		c.goAway(3)
		c.ends()
		d.drained(0, 1, 0)
	})
}

func TestGoAwayNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, c := h2Fake(t, Config{})
		c.request(1, "/slow", true)
		<-s.entered
		start := time.Now()
		d.Drain(0)
		c.leaving()
		after(start, 3*time.Second)
		c.request(3, "/", true)
		c.answer(3, "hello")
		after(start, 8*time.Second) // later than the lame-duck time: it is in use
		c.request(5, "/", true)
		c.answer(5, "hello")
		close(s.release)
		c.answer(1, "slow")
		c.goAway(5)
		if took := time.Since(start); took != 8*time.Second {
			t.Errorf("the last word after %v", took)
		}
		// A pipe can't be shut down half: the client has a second to do it.
		c.ends()
		d.drained(0, 1, 0)
	})
}

func TestGoAwayNotAnsweredIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := h2Fake(t, Config{LameDuck: 2 * time.Second})
		start := time.Now()
		d.Drain(0)
		c.leaving()
		c.goAway(0)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the last word after %v", took)
		}
		c.request(1, "/", true) // refused: it is not served
		c.ends()
		if d.Requests() != 0 {
			t.Error("what was refused was served")
		}
		d.drained(0, 1, 0)
	})
}

// A connection that was never used does not end under the hands of a client that is about to,
// and has time to see that it must not.
func TestGoAwayUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := h2Fake(t, Config{})
		start := time.Now()
		d.Drain(0)
		c.WritePing(true, c.leaving())
		c.goAway(0)
		c.ends()
		if took := time.Since(start); took != DefaultLameDuck+grace {
			t.Errorf("ended after %v", took)
		}
		d.drained(0, 1, 0)
	})
}

// A stream that is longer than the timeout is cut.
func TestGoAwayCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, c := h2Fake(t, Config{})
		c.request(1, "/slow", true)
		<-s.entered
		start := time.Now()
		d.Drain(0)
		c.WritePing(true, c.leaving())
		c.goAway(1)
		c.ends()
		if took := time.Since(start); took != DefaultTimeout {
			t.Errorf("cut after %v", took)
		}
		d.drained(0, 0, 1)
	})
}

// A client that reads nothing holds nobody up but itself.
func TestGoAwayNotRead(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		cfg := Config{Timeout: 200 * time.Millisecond}
		if secure {
			cfg.TLS = serverTLS(t)
		}
		var once sync.Once
		writing := make(chan struct{})
		d := serve(t, h2Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for b := make([]byte, 1<<20); ; once.Do(func() { close(writing) }) {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		})), listen(t, "tcp"), cfg)
		var nc net.Conn = dial(t, d.ln.Addr()).Conn
		if secure {
			nc = tls.Client(nc, clientTLS("h2"))
		}
		c := newH2Client(t, nc)
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		c.WriteWindowUpdate(0, 1<<30)
		c.request(1, "/", true)
		<-writing
		d.Drain(0)
		d.drained(0, 0, 1)
	}
}

// When the server has sent a GOAWAY of its own, nothing is added to it.
func TestGoAwayByServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ln := newSite(), newPipes()
		srv := h2Server(s)
		srv.IdleTimeout = time.Second
		d := serve(t, srv, ln, Config{})
		c := newH2Client(t, pump(ln.dial(t).Conn))
		c.request(1, "/", true)
		c.answer(1, "hello")
		c.goAway(1) // it was idle for too long
		d.Drain(0)
		c.ends() // a second later
		d.drained(1, 0, 0)
	})
}

// A server that does not speak HTTP/2 is not told to.
func TestPrefaceToHTTP1(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	d := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nc, rw, _ := w.(http.Hijacker).Hijack() // as golang.org/x/net/http2/h2c does
		defer nc.Close()
		entered <- struct{}{}
		<-entered
		rw.WriteString("something else")
		rw.Flush()
	})}, listen(t, "tcp"), Config{})
	c := dial(t, d.ln.Addr())
	c.send(http2.ClientPreface)
	<-entered
	d.Drain(0)
	until(t, "nobody accepts", func() bool { return isClosed(d.Quiet()) })
	entered <- struct{}{}
	if b, err := io.ReadAll(c); string(b) != "something else" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	d.drained(1, 0, 0)
}

// Answers come in frames, and their parts in writes: a GOAWAY is never inside of one, and
// never among the frames of a header.
func TestGoAwayAmongFrames(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 1<<18)
	for _, secure := range []bool{false, true} {
		var cfg Config
		if secure {
			cfg.TLS = serverTLS(t)
		}
		for range 5 {
			answers := make(chan struct{}, 8)
			s := newSite()
			s.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Big", big[:20000]) // more than a frame
				answers <- struct{}{}
				io.WriteString(w, big)
			})
			d := serve(t, h2Server(s), listen(t, "tcp"), cfg)
			var clients sync.WaitGroup
			tr := h2Clients(d.ln.Addr(), secure)
			for range 8 {
				clients.Go(func() {
					resp, err := tr.RoundTrip(must(http.NewRequest("GET", "https://x/big", nil)))
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					if b, err := io.ReadAll(resp.Body); string(b) != big || err != nil {
						t.Errorf("%d bytes, %v", len(b), err)
					}
				})
			}
			for range 8 {
				<-answers
			}
			d.Drain(0)
			clients.Wait()
			d.drained(1, 0, 0)
		}
	}
}
