package protocols_test

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/handover-go/handover/draintest/load"
)

// peers is what strict clients ask for (package load), and says in X-Peer who has asked.
func peers(who string) http.Handler {
	mux := http.NewServeMux()
	pause := func(r *http.Request) time.Duration {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		return time.Duration(ms) * time.Millisecond
	}
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, who) })
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, r *http.Request) {
		<-time.After(pause(r))
		fmt.Fprintln(rw, who)
	})
	mux.HandleFunc("/upload", func(rw http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(rw, "%d %x\n", n, h.Sum(nil))
	})
	mux.HandleFunc("/stream", func(rw http.ResponseWriter, r *http.Request) {
		for i := range 10 {
			fmt.Fprintln(rw, i)
			_ = http.NewResponseController(rw).Flush()
			<-time.After(pause(r) / 10)
		}
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Worker", who)
		rw.Header().Set("X-Peer", r.RemoteAddr)
		rw.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		mux.ServeHTTP(rw, r)
	})
}

// proxy passes connections on, with a header that says whose they are.
func proxy(t *testing.T, to string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	pass := func(from, to *net.TCPConn) {
		_, err := io.Copy(to, from)
		if err != nil {
			to.SetLinger(0) // as it came
			to.Close()
			return
		}
		to.CloseWrite()
	}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			client := c.(*net.TCPConn)
			wg.Go(func() {
				defer client.Close()
				c, err := net.Dial("tcp", to)
				if err != nil {
					client.SetLinger(0)
					return
				}
				server := c.(*net.TCPConn)
				defer server.Close()
				_, _ = proxyproto.HeaderProxyFromAddrs(2, client.RemoteAddr(), client.LocalAddr()).WriteTo(server)
				var half sync.WaitGroup
				half.Go(func() { pass(client, server) })
				pass(server, client)
				half.Wait()
			})
		}
	})
	return ln.Addr().String()
}

// TestProxyProtocol: no request fails in upgrades of a server behind the PROXY protocol, and
// the client's address is always the right one. Connections do not move: the next process
// would not know whose they are.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, "proxied", "http=tcp://127.0.0.1:0")
	front := proxy(t, s.addr)
	l := s.load(front, everyone)
	asks := connectTo(t, front)
	for i := range 4 {
		asks = asks.peer(t)
		s.upgrade()
		answered(t, l, i+2)
		asks = asks.peer(t)
	}
	lameDucks(t, l)
	asks.c.Close()
	s.stop()
	s.clean()
}

// asker is a connection that is kept as long as it may be.
type asker struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
}

func connectTo(t *testing.T, addr string) asker {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return asker{addr, c, bufio.NewReader(c)}
}

// ask makes one request.
func (a asker) ask(t *testing.T, path string) *http.Response {
	t.Helper()
	fmt.Fprintf(a.c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	resp, err := http.ReadResponse(a.r, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// peer checks who the server takes it for. It returns another connection, if this one is
// to be closed, or has been, in order, since it was idle for too long.
func (a asker) peer(t *testing.T) asker {
	t.Helper()
	_ = a.c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := a.r.Peek(1); errors.Is(err, io.EOF) {
		a.c.Close()
		a = connectTo(t, a.addr)
	}
	_ = a.c.SetReadDeadline(time.Now().Add(patience))
	resp := a.ask(t, "/")
	if got, want := resp.Header.Get("X-Peer"), a.c.LocalAddr().String(); got != want {
		t.Errorf("the server takes %s for %s", want, got)
	}
	if resp.Close {
		a.c.Close()
		return connectTo(t, a.addr)
	}
	return a
}

// TestLimit: no request fails in upgrades of a server that has a limit of connections, also
// while it is reached, and the next worker takes who waits.
func TestLimit(t *testing.T) {
	t.Parallel()
	s := start(t, "limited", "http=tcp://127.0.0.1:0")
	// Two connections for each worker, which are kept; nobody else is served.
	held := map[string][]asker{}
	for range 4 {
		a := connectTo(t, s.addr)
		who := a.ask(t, "/").Header.Get("X-Worker")
		held[who] = append(held[who], a)
	}
	for who, list := range held {
		if len(list) != 2 {
			t.Errorf("%s has %d connections", who, len(list))
		}
	}
	waits := connectTo(t, s.addr)
	served := make(chan string)
	go func() { served <- waits.ask(t, "/").Header.Get("X-Worker") }()
	busy := make(chan *http.Response)
	for _, list := range held {
		go func() { busy <- list[0].ask(t, "/slow?ms=500") }()
	}
	from := s.mark()
	s.upgrade()
	if who := <-served; generation(who) != 2 {
		t.Errorf("the one that waited was served by %s", who)
	}
	for range held { // a request in flight is finished,
		if who := (<-busy).Header.Get("X-Worker"); generation(who) != 1 {
			t.Errorf("finished by %s", who)
		}
	}
	for _, list := range held { // the next one on that connection is the last,
		if resp := list[0].ask(t, "/"); !resp.Close || generation(resp.Header.Get("X-Worker")) != 1 {
			t.Errorf("not by the old worker, or without Connection: close: %v", resp.Header)
		}
	}
	for _, list := range held { // and an idle connection is closed, in order
		if b, err := io.ReadAll(list[1].r); len(b) > 0 || err != nil {
			t.Errorf("an idle connection ends with %q, %v", b, err)
		}
	}
	if _, _, _, cut := s.drained(from); cut > 0 {
		t.Errorf("%d were cut", cut)
	}
	waits.c.Close()

	l := s.load(s.addr, map[load.Kind]int{load.New: 3, load.Slow: 1, load.Upload: 1, load.Stream: 1})
	for i := range 3 {
		s.upgrade()
		answered(t, l, i+3)
	}
	if err := l.Stop().Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	s.stop()
	s.clean()
}
