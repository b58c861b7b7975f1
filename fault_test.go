//go:build linux

package handover_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/fault"
)

// afterKill says who decides when a process is killed at a step of its own.
var afterKill = map[string][]outcome{
	fault.OldBegins: {restarted}, // nothing was started
	// What the new one is to inherit is on its way at the same time. Without it, it
	// gives up.
	fault.OldStarted:    {newDecides, restarted},
	fault.OldPrepared:   {newDecides},
	fault.OldYielded:    {newDecides},
	fault.OldCommitted:  {newDecides},
	fault.OldHeardReady: {newDecides},
	fault.OldNamedNew:   {newDecides},
	fault.OldReplaced:   {newDecides},
	fault.NewBegins:     {oldDecides},
	fault.NewMet:        {oldDecides},
	fault.NewBuilt:      {oldDecides},
	fault.NewPrepared:   {oldDecides},
	fault.NewGotCommit:  {oldDecides},
	fault.NewTook:       {oldDecides},
	fault.NewPIDFile:    {oldDecides},
	// It has said that it is ready. Until the old one lets go of the service, it goes
	// on; when it has, nobody is left: at one moment one process has to be the last.
	fault.NewReady:     {oldDecides, restarted},
	fault.NewCommitted: {oldDecides, restarted},
}

// TestParentKilledAtEachStep: as long as a parent is left, it decides, alone; when
// none is left, the workers drain and the anchor starts another one. The sockets stay
// open all the time.
func TestParentKilledAtEachStep(t *testing.T) {
	for _, step := range fault.Upgrade {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := startFaulty(t, step)
			l := f.load(20)
			f.witness()
			h := holdFor(t, f.addr, time.Second)
			from := f.upgradeTo(syscall.SIGKILL)
			got := f.outcome(from)
			if !slices.Contains(afterKill[step], got) {
				t.Errorf("%s, not one of %q", got, afterKill[step])
			}
			h.answeredBy(t, "generation=1 ")
			f.goesOn(t, l)
		})
	}
}

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
