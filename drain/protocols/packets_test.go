package protocols_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/worker"
)

const envLock = "PROTOCOLS_LOCK"

func lockFile() string { return os.Getenv(envLock) }

func init() {
	at := answer
	answer = func(c net.PacketConn, to net.Addr, packet, who string) {
		<-time.After(20 * time.Millisecond) // so that there is always something that was read
		at(c, to, packet, who)
	}
}

// TestPackets: of packets that come without a pause, each is answered once while workers
// are upgraded and stopped; and where the app lets one at a time read, each worker reads
// once, a number of packets without a gap.
func TestPackets(t *testing.T) {
	t.Parallel()
	s := start(t, "packets", "stats=udp://127.0.0.1:0", envLock+"="+file(t))
	c, err := net.Dial("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const underWay = 50 // the queue's room is for some hundreds
	sent, readers, answered := 0, []string{}, 0
	// rounds sends and reads until the reader is of a generation.
	rounds := func(ok func(who string) bool) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(patience))
		for who := ""; !ok(who) || answered < sent; {
			for ; sent < answered+underWay && !ok(who); sent++ {
				readers = append(readers, "")
				if _, err := fmt.Fprint(c, sent); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 200)
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("%d of %d packets were answered: %v", answered, sent, err)
			}
			number, by, _ := strings.Cut(string(b[:n]), " ")
			i := 0
			if _, err := fmt.Sscan(number, &i); err != nil || i >= sent || readers[i] != "" {
				t.Fatalf("answered twice, or not asked: %q", b[:n])
			}
			readers[i], who = by, by
			answered++
		}
	}
	rounds(func(who string) bool { return generation(who) == 1 })
	for i := range 3 {
		done := make(chan struct{})
		go func() { s.upgrade(); close(done) }()
		rounds(func(who string) bool { return generation(who) == i+2 })
		<-done
	}
	was, turns := map[string]bool{}, 0
	for i, who := range readers { // they were sent, and read, in this order
		if i > 0 && readers[i-1] == who {
			continue
		}
		turns++
		if was[who] {
			t.Errorf("packet %d: two workers have read at the same time", i)
		}
		was[who] = true
	}
	t.Logf("%d packets, %d turns", sent, turns)
	if turns < 4 {
		t.Errorf("%d turns", turns)
	}
	s.stop()
}

// serveDropped is wrong: what it has read when the drain begins is not answered.
func serveDropped(ctx context.Context, w *worker.Worker) error {
	c, err := w.PacketConn("stats")
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		packet := string(b[:n])
		go answer(c, from, packet, who(w))
	}
}

func startPackets(t *testing.T, s *service, timeout time.Duration) *load.Load {
	return startStrict(t, load.Config{
		Addr: s.addr, Clients: map[load.Kind]int{load.UDP: 8}, Rate: 40, Plain: true, Timeout: timeout,
	})
}

// TestPacketsLoad: strict clients lose no datagram and get none twice, in upgrades.
func TestPacketsLoad(t *testing.T) {
	t.Parallel()
	s := start(t, "packets", "stats=udp://127.0.0.1:0", envLock+"="+file(t))
	l := startPackets(t, s, patience)
	for range 4 {
		goesOn(t, l, 40)
		s.upgrade()
	}
	goesOn(t, l, 40)
	r := l.Stop()
	if err := r.Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	t.Logf("%d datagrams", r.Started)
	s.stop()
}

// TestPacketsDropped: a server that does not answer all that it has read is found out.
func TestPacketsDropped(t *testing.T) {
	t.Parallel()
	s := start(t, "packets dropped", "stats=udp://127.0.0.1:0")
	l := startPackets(t, s, 2*time.Second)
	for late := time.Now().Add(patience); l.Snapshot().Failures.Total() == 0 && time.Now().Before(late); {
		goesOn(t, l, 20)
		s.upgrade()
	}
	if r := l.Stop(); r.Failures.Total() == 0 || r.Failures[load.Timeout] != r.Failures.Total() || r.Accounted() != nil {
		t.Errorf("want datagrams that were lost:\n%v", r)
	} else {
		t.Log(r)
	}
	s.stop()
}
