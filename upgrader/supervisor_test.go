//go:build linux

package upgrader

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
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

// TestStoreIsFull: a supervisor that keeps fewer descriptors than there are says nothing of it
// to the service, which does.
func TestStoreIsFull(t *testing.T) {
	t.Parallel()
	for max, full := range map[int]bool{1: true, 2: false} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, settings{Listen: []string{"a=tcp://127.0.0.1:0", "b=tcp://127.0.0.1:0"}})
			s.env = []string{fmt.Sprint("FDSTORE=", max)}
			r := s.start()
			stored := 0
			until(t, "two are given", func() bool {
				for _, note := range r.hears(9) {
					if strings.HasPrefix(note, "FDSTORE=1\n") {
						stored++
					}
				}
				return stored == 2
			})
			r.stop()
			<-r.gone
			if said := strings.Contains(r.out.String(), "keeps fewer descriptors than there are"); said != full {
				t.Errorf("%d of 2 are kept, and it says so: %t", max, said)
			}
			if full && !strings.Contains(r.out.String(), "number=2 limit=1") {
				t.Error("it does not say how many there are")
			}
		})
	}
}
