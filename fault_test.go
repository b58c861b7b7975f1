//go:build linux

package handover_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/fault"
)

// goesOn checks that the service is well after a fault, and stops it.
func (f *faulty) goesOn(t *testing.T, l *load.Load) {
	t.Helper()
	f.settle()
	f.upgrade() // whoever decides now can still be replaced
	f.settle()
	check(t, l)
	f.signal(syscall.SIGTERM)
	f.ended(0)
}

// afterStop says who decides when a process is stopped at a step of its own until the
// upgrade's time is over.
func afterStop(step string) outcome {
	switch step {
	case fault.OldCommitted, fault.OldHeardReady, fault.OldNamedNew, fault.OldReplaced: // the new one does already
		return newDecides
	case fault.NewReady, fault.NewCommitted: // the old one has gone, and nobody waits
		return newDecides
	}
	return oldDecides
}

// TestParentStoppedAtEachStep: whoever is stopped can't hold anybody up for long, and
// does no harm when it goes on.
func TestParentStoppedAtEachStep(t *testing.T) {
	for _, step := range fault.Upgrade {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := startFaulty(t, step, "TEST_UPGRADE_TIMEOUT="+upgradeTimeout.String())
			l := f.load(20)
			f.witness()
			h := holdFor(t, f.addr, time.Second)
			from := f.upgradeTo(syscall.SIGSTOP)
			pid := f.stopped()
			late := time.After(upgradeTimeout)
			switch {
			case step == fault.NewReady, step == fault.NewCommitted:
			case strings.HasPrefix(step, "new"):
				until(t, 10*time.Second, func() string { // the old one ends it
					if statusOf(pid, "State") != "" {
						return "the new parent is not given up"
					}
					return ""
				})
			default:
				<-late
			}
			_ = syscall.Kill(pid, syscall.SIGCONT)
			if got, want := f.outcome(from), afterStop(step); got != want {
				t.Errorf("%s, not: %s", got, want)
			}
			h.answeredBy(t, "generation=1 ")
			f.goesOn(t, l)
		})
	}
}

// TestStopAtEachStep: TERM to the anchor while a parent takes a step. That parent is
// stopped until the signal has arrived, so that it finds it when it goes on, or until
// the other one has acted on it.
func TestStopAtEachStep(t *testing.T) {
	for _, step := range fault.Upgrade {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := startFaulty(t, step)
			h := holdFor(t, f.addr, time.Second)
			f.upgradeTo(syscall.SIGSTOP)
			pid := f.stopped()
			f.signal(syscall.SIGTERM)
			until(t, 10*time.Second, func() string {
				pending, _ := strconv.ParseUint(statusOf(pid, "ShdPnd"), 16, 64)
				done := strings.Contains(f.tail(10), "msg=stopped")
				if statusOf(pid, "State") != "" && !done && pending&(1<<(syscall.SIGTERM-1)) == 0 {
					return "the stop does not arrive"
				}
				return ""
			})
			_ = syscall.Kill(pid, syscall.SIGCONT)
			h.answeredBy(t, "generation=1 ")
			f.ended(0)
			if _, err := os.Stat(f.pidFile); !os.IsNotExist(err) {
				t.Errorf("the PID file is still there: %v", err)
			}
		})
	}
}
