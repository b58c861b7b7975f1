package protocols_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
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
