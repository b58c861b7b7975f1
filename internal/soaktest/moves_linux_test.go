package soaktest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/shop"
)

// TestMoves has connections that clients keep move from worker to worker, until there were so many
// moves, as the workers count them. None is closed, and each answer is that to its request.
func TestMoves(t *testing.T) {
	conns, wanted := 100, amount(t, 400, 1_000_000)
	if share(t) > 0 {
		conns = 1000
	}
	s := start(t)
	l := begin(t, s, load.Config{Rate: 0.5, WaitReady: shop.Patience, Clients: map[load.Kind]int{load.KeepAlive: conns}})
	opened(t, s, conns)
	began, from, drains := time.Now(), moves(t, s), 0
	for moved := 0; moved < wanted; drains++ {
		drain(t, s, fmt.Sprintf("web/%d", 1+drains%2))
		moved = moves(t, s) - from
		if drains > 10+4*wanted/conns {
			t.Fatalf("%d drains of a service with %d connections have moved %d", drains, conns, moved)
		}
	}
	t.Logf("%s, in %d drains with %d connections", pace(moves(t, s)-from, "moves", began), drains, conns)
	opened(t, s, conns)
	r := end(t, l)
	t.Logf("%d requests, %d failed, %d connections closed", r.Started, r.Failures.Total(), r.ClosedIdle)
	s.Stop(true)
}

// drain drains a worker, in whose place another one comes, and waits until it has ended.
func drain(t *testing.T, s *shop.Shop, worker string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), shop.Patience)
	defer cancel()
	ev, err := s.Control.Act(ctx, control.Wish{Verb: control.Drain, Worker: worker}, func(control.Event) {})
	if err != nil || ev.Result != control.Done {
		t.Fatalf("drain of %s: %+v, %v", worker, ev, err)
	}
}

// moves is how many connections workers have given to others, so far.
func moves(t *testing.T, s *shop.Shop) int {
	t.Helper()
	return metric(t, s, "handover_connections_moved_out_total")
}

// opened waits until workers have so many connections.
func opened(t *testing.T, s *shop.Shop, conns int) {
	t.Helper()
	limit := time.Now().Add(shop.Patience)
	for {
		n := metric(t, s, "handover_connections_open")
		if n == conns {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d connections are open, not %d", n, conns)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// metric is that of the web workers.
func metric(t *testing.T, s *shop.Shop, name string) int {
	t.Helper()
	c := http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.Dir, "control"))
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://handover/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("%s{group=%q} ", name, "web")
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(prefix)); ok {
			f, err := strconv.ParseFloat(string(bytes.TrimSpace(v)), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(f)
		}
	}
	t.Fatalf("%d: no %s: %s", resp.StatusCode, name, b)
	return 0
}
