package metrics

import (
	"testing"
	"time"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/golden"
)

// TestKeepsTime: how long an upgrade and a drain take does not depend on what is done to the
// clock when the parent changes.
func TestKeepsTime(t *testing.T) {
	for _, d := range golden.Jumps {
		old, next := newBook(), newBook()
		began, drains := time.Now().Add(-3*time.Second), time.Now().Add(-time.Hour)
		old.begin(began, false)
		old.Workers["web/1/2/4"] = worker{Group: "web", Draining: drains}
		for range 2 { // the second time in a snapshot
			text, err := old.give(clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			next = newBook()
			if err := next.take(golden.Ahead(text, d)); err != nil {
				t.Fatal(err)
			}
			if off := next.Rolling.Sub(began); off != 0 {
				t.Errorf("%v: the upgrade has begun %v later", d, off)
			}
			if off := next.Workers["web/1/2/4"].Draining.Sub(drains); off != 0 {
				t.Errorf("%v: the drain has begun %v later", d, off)
			}
			if got := old.Workers["web/1/2/4"].Draining; got.String() != drains.String() {
				t.Error("who gives a book away has another one")
			}
		}
		next.serve(began.Add(4 * time.Second))
		if next.Upgrade.Sum != 4 {
			t.Errorf("%v: it took %v s", d, next.Upgrade.Sum)
		}
	}
}
