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
