package drain

import (
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bareMove sends connections to this process itself, and receives them, with nothing
// but what it takes: what comes replaces what was sent.
func bareMove(b *testing.B, pair [2]int, conns []net.Conn) time.Duration {
	b.Helper()
	oob := make([]byte, unix.CmsgSpace(4))
	start := time.Now()
	for i, c := range conns {
		var err error
		raw, _ := c.(syscall.Conn).SyscallConn()
		_ = raw.Control(func(fd uintptr) {
			err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(int(fd)), nil, 0)
		})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		cmsgs := must(unix.ParseSocketControlMessage(oob[:n]))
		f := os.NewFile(uintptr(must(unix.ParseUnixRights(&cmsgs[0]))[0]), "connection")
		if conns[i], err = net.FileConn(f); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	return time.Since(start)
}

// BenchmarkMove prints how many times as long as a bare move of as many descriptors it
// takes until idle connections have gone from one server to another. Both take turns,
// as in BenchmarkServe.
func BenchmarkMove(b *testing.B) {
	const n = 1000
	r := newRelay(b, "tcp")
	// What is queued of one process is limited, and there is one only here.
	s := newSite()
	g := r.start(s)
	var clients []*client
	for range n {
		clients = append(clients, dial(b, r.ln.Addr()))
	}
	ln := listen(b, "tcp")
	defer ln.Close()
	var bare []net.Conn
	for range n {
		dial(b, ln.Addr())
		bare = append(bare, must(ln.Accept()))
	}
	pair := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	move := func() time.Duration {
		for _, c := range clients { // so that it is the server's, and not parked
			c.get("/")
			c.expect("hello", false)
		}
		g.waits("")
		next := r.start(s)
		start := time.Now()
		g.retire()
		<-g.Done()
		until(b, "all have come", func() bool { in, _ := next.Moved(); return in == n })
		took := time.Since(start)
		if rep := g.Report(); rep.Moved < n { // more, if the other side was slow and some came back
			b.Fatalf("%+v", rep)
		}
		g = next
		return took
	}
	var ratios, each []float64
	for b.Loop() {
		for range 2 {
			m := move()
			ratios = append(ratios, float64(m)/float64(bareMove(b, pair, bare)))
			each = append(each, float64(m.Microseconds())/n)
		}
	}
	for _, c := range bare {
		c.Close()
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(each), "µs/connection")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMovable is BenchmarkServe of connections that could move, but do not.
func BenchmarkMovable(b *testing.B) {
	const n = 2000 // short turns: what disturbs both is the same
	s := newSite()
	plain := &http.Server{Handler: s}
	ln := listen(b, "tcp")
	go plain.Serve(ln)
	defer plain.Close()
	r := newRelay(b, "tcp")
	d := r.start(s)
	var ratios []float64
	for b.Loop() {
		p := rate(b, ln.Addr(), n, true)
		ratios = append(ratios, rate(b, d.ln.Addr(), n, true)/p)
		q := rate(b, d.ln.Addr(), n, true)
		ratios = append(ratios, q/rate(b, ln.Addr(), n, true))
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op")
}
