package load

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// serveBytes serves every connection by do, and closes it.
func serveBytes(t testing.TB, ln net.Listener, do func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
}

// greets speaks first, and reads to the end.
func greets(c net.Conn) {
	io.WriteString(c, "220 ready\r\n")
	io.Copy(io.Discard, c)
}

func TestConnect(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		do   func(net.Conn)
		want Class
	}{
		"greets":      {greets, 0},
		"only closes": {func(net.Conn) {}, 0},
		"resets":      {func(c net.Conn) { io.Copy(io.Discard, c); resets(c.(*net.TCPConn)) }, Reset},
		"resets after its greeting": {func(c net.Conn) {
			io.WriteString(c, "220 ready\r\n")
			io.Copy(io.Discard, c)
			resets(c.(*net.TCPConn))
		}, Reset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			serveBytes(t, ln, tc.do)
			r := run(t, Config{Addr: ln.Addr().String(), Clients: map[Kind]int{Connect: 2}, MaxRequests: 10})
			var want Failures
			if tc.want != 0 {
				want[tc.want] = 10
			}
			if r.Failures != want || r.Accounted() != nil || r.Unmatched != 0 {
				t.Error(r)
			}
		})
	}
}

// Nobody listens.
func TestConnectRefused(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	ln.Close()
	r := run(t, Config{Addr: ln.Addr().String(), Clients: map[Kind]int{Connect: 1}, MaxRequests: 3})
	if r.Failures[Refused] != 3 {
		t.Error(r)
	}
}

// A server that goes on after the client's end has left the connection open, and that
// is no failure.
func TestConnectLeft(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	serveBytes(t, ln, func(net.Conn) { <-over })
	r := run(t, Config{Addr: "unix:" + ln.Addr().String(), Clients: map[Kind]int{Connect: 1}, MaxRequests: 1, Timeout: time.Second})
	close(over)
	if err := r.Check(); err != nil || r.LeftOpen != 1 {
		t.Errorf("%v\n%v", err, r)
	}
}
