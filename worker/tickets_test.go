//go:build linux

package worker_test

import (
	"syscall"
	"testing"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/tickets"
)

// TestTickets: a worker that was given keys shares them, others have a config all the same.
// The root package's TestResume has the rest. What is to be done at USR1 is done.
func TestTickets(t *testing.T) {
	t.Parallel()
	f, err := tickets.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // not before those that run side by side have ended
	fd, err := launch.Fd(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spec   spec
		shared string
	}{
		"given":     {spec{first: fd, env: []string{wire.EnvTickets + "=3"}}, "shared true true true"},
		"not given": {spec{}, "shared false false true"},
		"alone":     {spec{alone: true}, "shared false false true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.spec.app = "tickets"
			p := begin(t, c.spec)
			if !c.spec.alone {
				p.phase(wire.PhaseReady)
			}
			p.writes(c.shared + "\nenvironment \n")
			p.signal(syscall.SIGUSR1)
			p.writes("reopened")
			p.writes("a signal's action failed.*no log file")
			if c.spec.alone {
				p.signal(syscall.SIGTERM)
			} else {
				p.drain(0, true)
			}
			p.exits("exit status 0")
		})
	}
}
