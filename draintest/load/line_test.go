package load

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// lineServer echoes what comes, byte by byte; or does what bad says with every line.
func lineServer(t testing.TB, network string, bad func(c net.Conn, n int, line string) bool) (addr string) {
	t.Helper()
	ln := listen(t)
	addr = ln.Addr().String()
	if network == "unix" {
		ln.Close()
		path := filepath.Join(t.TempDir(), "s")
		var err error
		if ln, err = net.Listen(network, path); err != nil {
			t.Fatal(err)
		}
		addr = "unix:" + path
	}
	serveBytes(t, ln, func(c net.Conn) {
		if bad == nil {
			io.Copy(c, c)
			return
		}
		for n, br := 1, bufio.NewReader(c); ; n++ {
			line, err := br.ReadString('\n')
			if err != nil || !bad(c, n, line) {
				return
			}
		}
	})
	return addr
}

// packetServer echoes what comes; or does what bad says with every packet.
func packetServer(t testing.TB, bad func(c net.PacketConn, to net.Addr, n int, packet string)) (addr string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1000)
		for n := 1; ; n++ {
			size, from, err := c.ReadFrom(b)
			switch {
			case err != nil:
				return
			case bad == nil:
				c.WriteTo(b[:size], from)
			default:
				bad(c, from, n, string(b[:size]))
			}
		}
	})
	t.Cleanup(func() { c.Close(); wg.Wait() })
	return c.LocalAddr().String()
}

func TestLines(t *testing.T) {
	t.Parallel()
	var conns, packets atomic.Int32
	echo := func(c net.Conn, n int, line string) bool {
		if n == 1 {
			conns.Add(1)
		}
		io.WriteString(c, line)
		return true
	}
	for name, tc := range map[string]struct {
		kind Kind
		addr string
	}{
		"bytes": {TCP, lineServer(t, "tcp", nil)},
		"lines": {TCP, lineServer(t, "tcp", echo)},
		"unix":  {TCP, lineServer(t, "unix", nil)},
		"UDP": {UDP, packetServer(t, func(c net.PacketConn, to net.Addr, _ int, packet string) {
			packets.Add(1)
			c.WriteTo([]byte(packet), to)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, Config{Addr: tc.addr, Clients: map[Kind]int{tc.kind: 2}, MaxRequests: 60})
			if err := r.Check(); err != nil || r.OK != 60 || r.Unmatched != 0 {
				t.Errorf("%v\n%v", err, r)
			}
			if n := conns.Load(); name == "lines" && n != 2 {
				t.Errorf("%d connections for 2 clients", n)
			}
			if n := packets.Load(); name == "UDP" && n != 60 {
				t.Errorf("%d datagrams for 60 requests", n)
			}
		})
	}
}

// A line comes in two pieces, so that a server is found out that loses the first of them.
func TestLineInPieces(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	got := make(chan string, 1)
	serveBytes(t, ln, func(c net.Conn) {
		b := make([]byte, 100)
		n, _ := c.Read(b)
		got <- string(b[:n])
		n, _ = c.Read(b)
		c.Write(b[:n])
		io.Copy(io.Discard, c)
	})
	r := run(t, Config{Addr: ln.Addr().String(), Clients: map[Kind]int{TCP: 1}, MaxRequests: 1})
	if first := <-got; len(first) < 5 || strings.Contains(first, "\n") {
		t.Errorf("first came %q", first)
	}
	if r.Failures.Total() != 1 || r.Check() == nil {
		t.Error(r)
	}
}

// changed is a line, or a packet, in which the number is another one.
func changed(line, by string) string { return strings.TrimSuffix(line, "\n") + by }

func TestLinesFail(t *testing.T) {
	t.Parallel()
	var before string // of "an old one", which has one client
	for name, tc := range map[string]struct {
		bad    func(c net.Conn, line string) bool // in the place of a connection's second echo
		want   Class
		detail string
	}{
		"cut":            {func(net.Conn, string) bool { return false }, EOF, "waiting for the echo: EOF"},
		"cut in a line":  {func(c net.Conn, line string) bool { io.WriteString(c, line[:5]); return false }, Cut, "waiting for the echo, after"},
		"RST":            {func(c net.Conn, _ string) bool { resets(c.(*net.TCPConn)); return false }, Reset, "reset by peer"},
		"nothing":        {func(net.Conn, string) bool { return true }, Timeout, "waiting for the echo"},
		"half":           {func(c net.Conn, line string) bool { io.WriteString(c, line[:5]); return true }, Timeout, "after"},
		"the other half": {func(c net.Conn, line string) bool { io.WriteString(c, line[5:]); return true }, Body, "which is no echo"},
		"of another":     {func(c net.Conn, line string) bool { io.WriteString(c, changed(line, "0\n")); return true }, CrossTalk, "echo of"},
		"an old one":     {func(c net.Conn, line string) bool { io.WriteString(c, before); return true }, Duplicated, "a second echo of"},
		"changed":        {func(c net.Conn, line string) bool { io.WriteString(c, changed(line, "!\n")); return true }, Body, "there came"},
		"a greeting":     {func(c net.Conn, line string) bool { io.WriteString(c, "hello\n"+line); return true }, Body, `"hello", which is no echo`},
		"endless": {func(c net.Conn, _ string) bool { io.WriteString(c, strings.Repeat("x", 5000)); return true },
			Body, "a line of more than 4096 bytes"},
		"twice":      {func(c net.Conn, line string) bool { io.WriteString(c, line+line); return true }, Duplicated, "idle, and there came: a second echo"},
		"cut, later": {func(c net.Conn, line string) bool { io.WriteString(c, line+line[:3]); return false }, Cut, "idle, after"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := lineServer(t, "tcp", func(c net.Conn, n int, line string) bool {
				if n == 2 {
					return tc.bad(c, line)
				}
				if name == "an old one" {
					before = line
				}
				_, err := io.WriteString(c, line)
				return err == nil
			})
			cfg := Config{Addr: addr, Clients: map[Kind]int{TCP: 1}, Rate: 20}
			if tc.want == Timeout {
				cfg.Timeout = 500 * time.Millisecond
			}
			l := mustStart(t, cfg)
			waitFor(t, l, "a failure", func(r Result) bool { return r.Failures.Total() > 0 })
			r := l.Stop()
			if r.Failures[tc.want] != r.Failures.Total() || r.OK < 1 || r.ClosedIdle != 0 || r.Accounted() != nil {
				t.Fatalf("want %v:\n%v", tc.want, r)
			}
			if f := r.Errors[0]; !strings.Contains(f.Detail, tc.detail) || f.Nth != 2 || f.Remote != cfg.Addr || f.Local == "" {
				t.Errorf("want %q: %+v", tc.detail, f)
			}
		})
	}
}

// A connection that ends between two lines is no failure, and the next line has another one.
func TestLinesClosedIdle(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end    func(c net.Conn)
		detail string
	}{
		"closes": {func(net.Conn) {}, "idle: EOF"},
		"resets": {func(c net.Conn) { resets(c.(*net.TCPConn)) }, "reset by peer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			addr := lineServer(t, "tcp", func(c net.Conn, _ int, line string) bool {
				n := conns.Add(1) // before the client can know
				io.WriteString(c, line)
				if n > 1 {
					return true
				}
				<-time.After(100 * time.Millisecond) // the echo is to arrive
				tc.end(c)
				return false
			})
			l := mustStart(t, Config{Addr: addr, Clients: map[Kind]int{TCP: 1}, Rate: 0.7})
			waitFor(t, l, "an echo on another connection", func(r Result) bool { return r.OK == 2 })
			r := l.Stop()
			if r.Failures.Total() != 0 || r.ClosedIdle != 1 || conns.Load() != 2 || !strings.Contains(r.Errors[0].Detail, tc.detail) || r.Check() == nil {
				t.Errorf("%d connections\n%v", conns.Load(), r)
			}
		})
	}
}

// A server that does not know of this package may greet, say more than what it echoes, tell
// news, and take leave; what it echoes twice is seen.
func TestPlainLines(t *testing.T) {
	t.Parallel()
	line := func(says ...string) string {
		var last atomic.Value
		return lineServer(t, "tcp", func(c net.Conn, n int, line string) bool {
			if n == 1 {
				last.Store("")
				io.WriteString(c, "220 hello\n")
			}
			for _, text := range says {
				io.WriteString(c, strings.NewReplacer("LINE", changed(line, ""), "LAST", last.Load().(string)).Replace(text))
			}
			last.Store(changed(line, ""))
			return true
		})
	}
	packet := func(says ...string) string {
		return packetServer(t, func(c net.PacketConn, to net.Addr, _ int, packet string) {
			for _, text := range says {
				c.WriteTo([]byte(strings.ReplaceAll(text, "LINE", packet)), to)
			}
		})
	}
	for name, tc := range map[string]struct {
		kind Kind
		addr string
		want Class
	}{
		"right":              {TCP, line("you said: LINE.\n", "news\n\nmore ", "news\n"), 0},
		"twice":              {TCP, line("you said: LINE.\n", "news\n", "you said: LINE.\n"), Duplicated},
		"another":            {TCP, line("you said: LINE0.\n"), CrossTalk},
		"right, by UDP":      {UDP, packet("you said: LINE", "news", "", "more news\n"), 0},
		"named, by UDP":      {UDP, packet("LINE generation=1\n"), 0},
		"twice, by UDP":      {UDP, packet("you said: LINE", "LINE"), Duplicated},
		"of another, by UDP": {UDP, packet("LINE0"), CrossTalk},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, Config{Addr: tc.addr, Clients: map[Kind]int{tc.kind: 1}, MaxRequests: 10, Plain: true})
			if tc.want == 0 && r.Check() != nil || r.Failures[tc.want] != r.Failures.Total() || r.Accounted() != nil {
				t.Errorf("want %v\n%v", tc.want, r)
			}
			if tc.want != 0 && r.Failures.Total() < 5 {
				t.Errorf("want failures: %v", r)
			}
		})
	}
}

func TestPacketsFail(t *testing.T) {
	t.Parallel()
	says := func(says ...string) func(c net.PacketConn, to net.Addr, packet string) {
		return func(c net.PacketConn, to net.Addr, packet string) {
			for _, text := range says {
				c.WriteTo([]byte(strings.ReplaceAll(text, "PACKET", packet)), to)
			}
		}
	}
	for name, tc := range map[string]struct {
		bad    func(c net.PacketConn, to net.Addr, packet string) // what comes third, and every third after it
		want   Class
		detail string
	}{
		"lost":       {says(), Timeout, "no echo within 500ms"},
		"twice":      {says("PACKET", "PACKET"), Duplicated, "a second echo of"}, // while it is idle, or before the next
		"of another": {says("PACKET0"), CrossTalk, "echo of"},
		"changed":    {says("PACKET!"), Body, "there came"},
		"cut":        {says("PAC"), Body, `"PAC", which is no echo`},
		"empty":      {says(""), Body, `"", which is no echo`},
		"long":       {says(strings.Repeat("x", 9000)), Body, "which is no echo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := packetServer(t, func(c net.PacketConn, to net.Addr, n int, packet string) {
				if n%3 == 0 {
					tc.bad(c, to, packet)
				} else {
					c.WriteTo([]byte(packet), to)
				}
			})
			cfg := Config{Addr: addr, Clients: map[Kind]int{UDP: 1}}
			if tc.want == Timeout {
				cfg.Timeout = 500 * time.Millisecond
			}
			l := mustStart(t, cfg)
			waitFor(t, l, "two failures", func(r Result) bool { return r.Failures.Total() > 1 })
			r := l.Stop()
			if r.Failures[tc.want] != r.Failures.Total() || r.OK < 4 || r.ClosedIdle != 0 || r.Accounted() != nil {
				t.Fatalf("want %v:\n%v", tc.want, r)
			}
			if f := r.Errors[0]; !strings.Contains(f.Detail, tc.detail) || f.Nth != 3 && f.Class != Duplicated || f.Remote != cfg.Addr || f.Local == "" {
				t.Errorf("want %q: %+v", tc.detail, f)
			}
		})
	}
}

// What comes too late was lost, and is not taken for the echo of the next one, which is from
// another socket.
func TestPacketsTooLate(t *testing.T) {
	t.Parallel()
	var old string
	var owner net.Addr
	addr := packetServer(t, func(c net.PacketConn, to net.Addr, n int, packet string) {
		switch n {
		case 2:
			old, owner = packet, to
			return
		case 3:
			c.WriteTo([]byte(old), owner)
		}
		c.WriteTo([]byte(packet), to)
	})
	r := run(t, Config{Addr: addr, Clients: map[Kind]int{UDP: 1}, MaxRequests: 5, Timeout: 500 * time.Millisecond})
	if r.OK != 4 || r.Failures[Timeout] != 1 || r.Failures.Total() != 1 {
		t.Error(r)
	}
}

// A socket that is gone for a moment refuses, by ICMP, which is seen at once.
func TestPacketsRefused(t *testing.T) {
	t.Parallel()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().String()
	c.Close()
	l := mustStart(t, Config{Addr: addr, Clients: map[Kind]int{UDP: 1}})
	waitFor(t, l, "refusals", func(r Result) bool { return r.Failures[Refused] >= 3 })
	if c, err = net.ListenPacket("udp", addr); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
	defer func() { c.Close(); <-served }()
	if err := l.WaitEach(within(t), 3); err != nil {
		t.Fatal(err)
	}
	if r := l.Stop(); r.Failures[Refused] != r.Failures.Total() || !strings.Contains(r.Check().Error(), "connection refused") {
		t.Error(r)
	}
}

// Whatever a server says is a failure with a class and words, or the echo; and the end of a
// connection takes nothing from the beginning of a line.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{"", "x", "\n", "run-1", "run-1\n", "run-12\n", "run-0\nrun-1\n", "hello\nyou said: run-1.\n", "run-1\nrun-1\n",
		"run-\n1\n", strings.Repeat("x", 4096), strings.Repeat("x", 4095) + "\n" + "run-1\n"} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, plain bool) {
		x := exchange{client: &client{cfg: Config{Plain: plain}, run: "run"}, failure: Failure{Kind: TCP, ID: "run-1"}}
		var l link
		l.open(scripted{in: bytes.NewReader(text)})
		class, detail := x.awaitLine(&l, "run-0")
		first, rest, whole := strings.Cut(string(text), "\n")
		ended := len(text) == 0 || text[len(text)-1] == '\n'
		switch {
		case class < 0 || class >= numClasses || (class == 0) != (detail == ""):
			t.Errorf("%q: %v, %q", text, class, detail)
		case class == EOF && (!ended || len(text) > 0 && !plain), class == Cut && ended:
			t.Errorf("%q: %v: %s", text, class, detail)
		case class == 0 && !strings.Contains(string(text), "run-1"):
			t.Errorf("a good answer: %q", text)
		case class == 0 && !plain:
			if first != "run-1" || !whole {
				t.Errorf("a good answer: %q", text)
			}
			if part, err := readLine(l.br); !strings.HasPrefix(rest, part) || err == nil && !strings.HasPrefix(rest, part+"\n") {
				t.Errorf("%q, %v, of %q", part, err, rest)
			}
		}
	})
}
