//go:build linux

package handover_test

import (
	"syscall"
	"testing"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
)

// TestMetricsAfterFault: the old parent goes on counting where it was when the new one dies,
// whatever that one has said meanwhile.
func TestMetricsAfterFault(t *testing.T) {
	for _, step := range []string{fault.NewBuilt, fault.NewGotCommit, fault.NewTook, fault.NewPIDFile} {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := startFaulty(t, step, noProbation)
			a := askAt(f.path)
			a.mayDie = true
			stop := scraping(t, a)
			l := f.load(20)
			if got := f.outcome(f.upgradeTo(syscall.SIGKILL)); got != oldDecides {
				t.Fatal(got)
			}
			f.settle()
			f.upgrade()
			f.settle()
			check(t, l)
			all := stop()
			drains := 2.0
			if step == fault.NewTook || step == fault.NewPIDFile {
				drains++ // of the new one's worker, which has come to the old one
			}
			all.is(t, samples{
				"generation{}": 2, "upgrades_total{failed}": 1, "upgrades_total{done}": 1, "upgrade_duration_seconds{}_count": 1,
				"worker_failures_total{web}": 0, "worker_start_duration_seconds{web}_count": 4, "worker_drain_duration_seconds{web}_count": drains,
			})
			if all["connections_accepted_total{web}"] == 0 {
				t.Error("no connections are counted")
			}
			f.stop()
		})
	}
}

// TestMetricsRolledBack: an upgrade that is undone is one, as is one that the next comes before.
func TestMetricsRolledBack(t *testing.T) {
	s, path := controlled(t, 2, "TEST_PROBATION=30s", "TEST_HEALTH=http:/healthz")
	stop := scraping(t, askAt(path))
	s.deploy("sick")
	c := control.NewClient(path)
	if last, steps := told(t, c.Upgrade); last.Result != control.RolledBack {
		t.Fatalf("%+v\n%s", last, steps)
	}
	s.install()
	for range 2 {
		if last, err := c.Upgrade(t.Context(), control.WaitServe, func(control.Event) {}); err != nil || last.Result != control.Done {
			t.Fatalf("%+v, %v", last, err)
		}
	}
	stop().is(t, samples{
		"generation{}": 5, "upgrades_total{done}": 0, "upgrades_total{failed}": 0, "upgrades_total{stopped}": 0,
		"upgrades_total{rolled-back}": 1, "upgrades_total{superseded}": 1, "upgrade_duration_seconds{}_count": 3,
	})
	s.stop()
}
