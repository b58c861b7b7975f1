package handover_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/control"
)

// TestPanicStorm: a client that makes the app panic, 50 times a second for 8 s,
// spoils its own requests and nobody else's, and takes no more than one worker's
// capacity at a time.
func TestPanicStorm(t *testing.T) {
	const count = 4
	socket := filepath.Join(t.TempDir(), "control")
	s := startService(t, count, "TEST_CONTROL="+socket)
	l := s.loadOf(40, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	var others sync.WaitGroup
	least := count
	others.Go(func() { least = leastAccepting(t, ctx, socket) })
	panics := 0
	for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; panics++ {
		others.Go(func() {
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
			if resp, err := client.Get("http://" + s.addr + "/panic"); err == nil {
				resp.Body.Close()
				t.Error("a panic was answered: " + resp.Status)
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
		}
	}
	others.Wait()
	check(t, l)
	t.Logf("%d panics, at least %d of %d workers accepted", panics, least, count)
	if panics < 200 || least < count-1 {
		t.Errorf("%d panics; at times only %d of %d workers accepted", panics, least, count)
	}
	if degraded := strings.Count(s.tail(1<<20), "goes on, degraded"); degraded == 0 {
		t.Error("no worker was degraded")
	}
	s.stop()
}

// leastAccepting asks all the time how many workers accept, and returns the smallest
// number.
func leastAccepting(t *testing.T, ctx context.Context, socket string) int {
	client, least := control.NewClient(socket), 1000
	for ctx.Err() == nil {
		st, _, err := client.Status(ctx)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			continue
		}
		n := 0
		for _, w := range st.Groups[0].Workers {
			if w.State == "serving" || w.State == "degraded" || w.State == "condemned" {
				n++
			}
		}
		least = min(least, n)
		<-time.After(5 * time.Millisecond)
	}
	return least
}
