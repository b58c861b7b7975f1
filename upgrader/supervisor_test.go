//go:build linux

package upgrader

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
)

// TestSupervisor: what a supervisor hears of upgrades that fail and that do not, and that
// its wish for signs of life is the main process's, whichever it is.
func TestSupervisor(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	s.env = []string{"WATCHDOG_USEC=60000000"}
	r := s.start()
	begins := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`)
	heard := func(want ...string) {
		t.Helper()
		var got []string
		until(t, fmt.Sprintf("%d notes are heard", len(want)), func() bool {
			got = append(got, r.hears(len(want)-len(got))...)
			return len(got) == len(want)
		})
		for i, note := range got {
			if begins.MatchString(note) {
				got[i] = "begins"
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the supervisor hears %q, want %q", got, want)
		}
	}
	main := func() string { return fmt.Sprintf("MAINPID=%d\nREADY=1", r.pid) }
	heard(main())
	s.configure(settings{Mode: "fail", Listen: one})
	if a := r.tryUpgrade(r.pid, patience); a.Err == "" {
		t.Error("an upgrade that has to fail")
	}
	heard("begins", "READY=1")
	s.configure(settings{Listen: one})
	for range 2 {
		r.upgrade()
		heard("begins", main())
		if want := fmt.Sprintf("WATCHDOG_PID=%d", r.pid); !slices.Contains(r.stats().Env, want) {
			t.Errorf("its environment is %q, want %s", r.stats().Env, want)
		}
	}
	r.stop()
}
