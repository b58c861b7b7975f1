package sdtest_test

import (
	"fmt"
	"testing"

	"github.com/handover-go/handover/internal/sdtest"
)

// TestReloads: 20 reloads under strict load, of good releases and bad ones. Nobody
// notices, systemd has nothing to restart, and 'systemctl reload' tells the truth.
func TestReloads(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}")})
		invocation := s.show("InvocationID")
		l := s.load(25)
		bad := []struct{ text, want string }{
			{"echo no database >&2; exit 1", "no database"},
			{"exec sleep 60", "not ready in time"},
			{"unset HANDOVER_ARGV0; exec " + s.dir + "/real run --name shop --workers 2 --listen http=tcp://" + s.addr +
				" -- sh -c 'echo no table; exit 7'", "no table"}, // the worker's last words
			{"kill -9 $$", "killed by SIGKILL"},
		}
		for i := range 20 {
			if i%2 == 0 {
				s.good()
				s.reload()
				continue
			}
			b := bad[i/2%len(bad)]
			s.script(b.text)
			s.fails(b.want)
		}
		s.good()
		s.reload() // a bad one leaves nothing in its way
		s.check(l)
		s.same(invocation)
	})
}

// TestHUP: upgrades that nobody has asked systemd for.
func TestHUP(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}")})
		invocation := s.show("InvocationID")
		l := s.load(25)
		for generation := 2; generation < 7; generation++ {
			before := s.show("MainPID")
			m.Must(t, "kill", "--signal=HUP", "--kill-who=main", unit)
			s.until(func() string {
				if pid := s.show("MainPID"); pid == before {
					return "MainPID is still " + pid
				}
				return ""
			})
			s.status(fmt.Sprintf(`"generation %d: 2 of 2 workers serve; upgraded `, generation))
		}
		s.check(l)
		s.same(invocation)
	})
}

// TestParentKilled: systemd notices the death of a main process that it has not started.
func TestParentKilled(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}")})
		s.reload()
		m.Must(t, "kill", "--signal=KILL", "--kill-who=main", unit)
		s.until(func() string {
			if n := s.show("NRestarts"); n != "1" || s.show("ActiveState") != "active" {
				return fmt.Sprintf("it was killed, and NRestarts is %s", n)
			}
			return ""
		})
		s.reload()
		l := s.load(25)
		s.check(l)
	})
}
