package soaktest_test

import (
	"context"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/shop"
)

// newBinary is how many upgrades there are for one to another file, to which the anchor changes,
// too.
const newBinary = 10

// TestUpgrades upgrades a service again and again. It takes no more in the end than after the
// first of them, in which what is bounded has come to its bounds.
func TestUpgrades(t *testing.T) {
	n := amount(t, 12, 10_000)
	s := start(t)
	l := begin(t, s, light)
	first := min(n/4, 500)
	upgrade := func(i int) {
		if i%newBinary == 0 {
			s.Deploy()
		}
		if s.Upgrade(); t.Failed() {
			t.FailNow()
		}
	}
	// What has not proven itself keeps the binary of what has.
	proven := func() {
		ctx, cancel := context.WithTimeout(t.Context(), shop.Patience)
		defer cancel()
		if ev, err := s.Control.Upgrade(ctx, control.WaitProbation, func(control.Event) {}); err != nil || ev.Result != control.Done {
			t.Fatalf("upgrade: %+v, %v", ev, err)
		}
	}
	for i := range first {
		upgrade(i)
	}
	before := levelOver(t, s, proven)
	began := time.Now()
	for i := first; i < n; i++ {
		upgrade(i)
	}
	t.Log(pace(n-first, "upgrades", began))
	after := levelOver(t, s, proven)
	t.Logf("%v, and then %v; %s", before, after, finds(n-first))
	if more := grown(before, after); more != nil {
		t.Errorf("it grows: %q", more)
	}
	if st := s.Status(); st.Generation < n {
		t.Errorf("generation %d after %d upgrades", st.Generation, n)
	}
	r := end(t, l)
	t.Logf("%d requests, %d failed", r.Started, r.Failures.Total())
	s.Stop(true)
}
