package handover_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These are tests of connections that do not move, and of those that end by themselves
// where they have moved to.

// awaitExits waits until all of these workers have exited.
func (s *service) awaitExits(from int, pids []int) {
	s.t.Helper()
	for _, pid := range pids {
		s.exits(from, strconv.Itoa(pid))
	}
}

// TestHijackedStays: a connection that a handler has taken over, before the drain or in
// it, is not touched, and is awaited.
func TestHijackedStays(t *testing.T) {
	s := startService(t, 2, "TEST_APP=configured")
	old := s.workers()
	echoes := make([]keeper, 2)
	for i, path := range []string{"/echo", "/echo?ms=1500"} {
		echoes[i] = connect(t, s.addr)
		fmt.Fprintf(echoes[i], "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", path)
	}
	if err := echoes[0].upgraded(); err != nil {
		t.Fatal(err)
	}
	from := s.mark()
	s.upgrade()
	if _, err := s.waitFrom(from, has("msg=draining")); err != nil {
		t.Fatal(err)
	}
	if err := echoes[1].upgraded(); err != nil {
		t.Fatal(err)
	}
	for _, e := range echoes {
		fmt.Fprint(e, "hello\n")
		line, err := e.r.ReadString('\n')
		if err != nil || !has("generation=1 ", ": hello")(line) {
			t.Errorf("%q, %v", line, err)
		}
		e.Close()
	}
	s.awaitExits(from, old)
	s.stop()
}

// upgraded reads the answer that makes a connection the handler's.
func (k keeper) upgraded() error {
	_ = k.SetDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(k.r, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return err
}

// TestPlaintextHTTP2Stays: what is in flight on a connection of HTTP/2 is answered, and
// the connection is not given away. One that has sent less than the first line of HTTP/2's
// preface moves, and speaks HTTP/2 there.
func TestPlaintextHTTP2Stays(t *testing.T) {
	s := startService(t, 2, "TEST_APP=configured")
	old := s.workers()
	client := http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}, Timeout: 30 * time.Second}
	client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	get := func(path string) (who string, err error) {
		resp, err := client.Get("http://" + s.addr + path)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && (resp.ProtoMajor != 2 || resp.Header.Get("X-Hooks") != "ok") {
			err = fmt.Errorf("%s, hooks: %s", resp.Proto, resp.Header.Get("X-Hooks"))
		}
		return string(b), err
	}
	if who, err := get("/"); err != nil {
		t.Fatal(who, err)
	}
	slow := make(chan error, 1)
	go func() {
		who, err := get("/slow?ms=1500")
		if err == nil && !has("generation=1 ")(who) {
			err = fmt.Errorf("%q has answered", who)
		}
		slow <- err
	}()
	cut := connect(t, s.addr)
	fmt.Fprint(cut, "PRI * HT")

	from := s.mark()
	s.upgrade()
	fmt.Fprint(cut, "TP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") // and SETTINGS
	frame := make([]byte, 9)
	_ = cut.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(cut.r, frame); err != nil || frame[3] != 4 {
		t.Errorf("cut in the preface: %q, %v", frame, err)
	}
	cut.Close()
	if err := <-slow; err != nil {
		t.Error("in flight: ", err)
	}
	s.awaitExits(from, old)
	if who, err := get("/"); err != nil || !has("generation=2 ")(who) {
		t.Errorf("afterwards: %q, %v", who, err)
	}
	client.CloseIdleConnections()
	s.stop()
}

// TestWrappedStays: connections under a listener that wraps the socket's are not given
// away. They get the lame-duck treatment, and keep the address that the wrapper gives them.
func TestWrappedStays(t *testing.T) {
	const from = "192.0.2.1:4711"
	s := startSolo(t, "tcp://127.0.0.1:0", "TEST_APP=wrapped")
	old := s.workers()[0]
	ask := func(k keeper) *http.Response {
		t.Helper()
		_ = k.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprint(k, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(k.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if peer := resp.Header.Get("X-Peer"); peer != from {
			t.Errorf("to the server it is from %s", peer)
		}
		return resp
	}
	idle, asks := connect(t, s.addr), connect(t, s.addr)
	for _, k := range []keeper{idle, asks} {
		fmt.Fprintln(k, from)
		if ask(k).Close {
			t.Error("an answer closes the connection before the drain")
		}
	}
	mark := s.mark()
	s.upgrade()
	if _, err := s.waitFrom(mark, has("msg=draining")); err != nil {
		t.Fatal(err)
	}
	if resp := ask(asks); !resp.Close || !has("pid="+strconv.Itoa(old))(resp.Header.Get("X-Worker")) {
		t.Errorf("%v has answered, close %t", resp.Header["X-Worker"], resp.Close)
	}
	if b, err := io.ReadAll(idle.r); err != nil || len(b) > 0 {
		t.Errorf("idle: %q, %v", b, err)
	}
	if _, err := s.waitFrom(mark, has("msg=drained", "moved=0 finished=1 closed_idle=1 cut=0")); err != nil {
		t.Fatal(err)
	}
	s.stop()
}

// TestLimitsOverUpgrade: what the server allows a connection, it allows it where it has
// moved to: how long it may be idle, how long a header may take, and how big it may be.
func TestLimitsOverUpgrade(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := startService(t, 2, "TEST_APP=configured", "TEST_IDLE=12s", "TEST_HEADER=12s")
	pad := "X-Pad: " + strings.Repeat("x", 3000) + "\r\n"
	old := s.workers()
	begun := []string{"", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n" + pad}
	conns := keep(t, s.addr, len(begun))
	for i, k := range conns {
		fmt.Fprint(k, begun[i])
	}
	from := s.mark()
	s.upgrade()
	s.awaitExits(from, old)
	if n := s.moved(); n != len(conns) {
		t.Errorf("%d connections have moved, not %d", n, len(conns))
	}
	// As on a connection that was never moved.
	undisturbed := connect(t, s.addr)
	fmt.Fprint(undisturbed, begun[2])
	var answers []string
	for _, k := range []keeper{conns[2], undisturbed} {
		fmt.Fprint(k, strings.Repeat(pad, 3)+"\r\n")
		answers = append(answers, rest(k))
	}
	if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "HTTP/1.1 431 ") {
		t.Errorf("too big a header: %q, and undisturbed %q", answers[0], answers[1])
	}
	for i, k := range conns[:2] { // the server closes them
		if got := rest(k); got != "" {
			t.Errorf("connection %d: %q", i, got)
		}
	}
	s.stop()
}

// rest is what comes until the server closes.
func rest(k keeper) string {
	_ = k.SetDeadline(time.Now().Add(60 * time.Second))
	b, err := io.ReadAll(k.r)
	if err != nil {
		return fmt.Sprintf("%s: %v", b, err)
	}
	return string(b)
}
