// Package soaktest_test has a service do for minutes, under strict clients, what others do once:
// upgrades, replacements of workers, moves of connections, and all of it at random.
//
// Without SOAK it takes seconds. SOAK=all is the long run of 'make soak', and SOAK=0.1 a tenth
// of it.
package soaktest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/shop"
	"github.com/handover-go/handover/message"
)

func TestMain(m *testing.M) { shop.Main(m, service) }

// envLeak has each parent leave a file in the service's directory, and a descriptor in the
// anchor's store.
const envLeak = "SOAK_LEAK"

func service() {
	cfg := shop.Config()
	cfg.Burst, cfg.Per = 1<<20, time.Second // who is replaced so often is no group that fails
	cfg.KeepOutput = true
	if os.Getenv(envLeak) != "" {
		cfg.InParent = leak
	}
	handover.Main(cfg, nil)
}

// share is which part of the long run is wanted, 0 for the short form.
func share(t *testing.T) float64 {
	t.Helper()
	switch v := os.Getenv("SOAK"); v {
	case "":
		return 0
	case "all":
		return 1
	default:
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f <= 0 {
			t.Fatalf("SOAK=%s: write all, or a part of it such as 0.1", v)
		}
		return f
	}
}

// amount is how often something is to be done.
func amount(t *testing.T, short, long int) int {
	t.Helper()
	return max(short, int(share(t)*float64(long)))
}

// start starts a service, and waits until it serves.
func start(t *testing.T, env ...string) *shop.Shop {
	t.Helper()
	s := shop.Open(t, env...)
	s.Settle(true)
	return s
}

// light is what clients do that are no burden.
var light = load.Config{
	Rate: 10, SlowMS: 100, WaitReady: shop.Patience,
	Clients: map[load.Kind]int{load.New: 2, load.Slow: 1, load.KeepAlive: 3},
}

// begin begins a load.
func begin(t *testing.T, s *shop.Shop, cfg load.Config) *load.Load {
	t.Helper()
	cfg.Addr = s.Addr
	l, err := load.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

// excuse takes out of a result what clients may have noticed.
type excuse = func(load.Result) load.Result

// end ends it. But for what is excused no client has noticed anything.
func end(t *testing.T, l *load.Load, lost ...excuse) load.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), shop.Patience)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil {
		t.Error(err)
	}
	r := l.Stop()
	for _, take := range lost {
		r = take(r)
	}
	if err := r.Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	return r
}

// pace is how fast something was done.
func pace(n int, what string, since time.Time) string {
	took := time.Since(since)
	return fmt.Sprintf("%d %s in %v, %.1f a second", n, what, took.Round(time.Millisecond), float64(n)/took.Seconds())
}

// leak leaves what is not to be left.
func leak(ctx context.Context, _ *message.Endpoint) {
	f, err := os.Create(filepath.Join(shop.Dir(), fmt.Sprintf("leak-%d", os.Getpid())))
	if err == nil {
		err = sdnotify.Store(fmt.Sprintf("leak-%d", os.Getpid()), f)
	}
	if err != nil {
		panic(err)
	}
	<-ctx.Done()
	f.Close()
}
