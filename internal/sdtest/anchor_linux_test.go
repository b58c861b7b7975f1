package sdtest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/sdtest"
)

// TestAnchor: with an anchor below systemd the main process is always the same, and
// systemd hears all the same what the parents say, whichever it is.
func TestAnchor(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--anchor --listen http=tcp://{addr}", "WatchdogSec=2s", "WatchdogSignal=SIGKILL", "KillMode=mixed")})
		invocation, main := s.show("InvocationID"), s.show("MainPID")
		l := s.load(25)
		for i := range 5 {
			s.good()
			m.Must(t, "reload", unit)
			s.status(fmt.Sprintf("generation %d: 2 of 2 workers serve", i+2))
			s.script("echo no database >&2; exit 1")
			s.fails("no database")
			if got := s.show("MainPID"); got != main {
				t.Fatalf("MainPID is %s, and was %s", got, main)
			}
		}
		s.check(l)
		s.same(invocation)
		m.Must(t, "stop", unit)
		if got := s.show("Result"); got != "success" {
			t.Errorf("after the stop Result is %s", got)
		}
		if j := m.Journal(unit); strings.Contains(j, "reception only permitted") || strings.Contains(j, "not our child") {
			t.Errorf("systemd complains: %s", j)
		}
	})
}
