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
		"given":                      {spec{first: fd, env: []string{wire.EnvTickets + "=3"}}, "shared true true true"},
		"not given":                  {spec{}, "shared false false true"},
		"alone":                      {spec{alone: true}, "shared false false true"},
		"alone, and the keys rotate": {spec{alone: true, env: []string{envRotation + "=1h"}}, "shared true true true"},
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

// TestTicketRotation: the keys are exchanged as often as the worker was told.
func TestTicketRotation(t *testing.T) {
	t.Parallel()
	f, err := tickets.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := launch.Fd(f)
	if err != nil {
		t.Fatal(err)
	}
	keys := func() string {
		b := make([]byte, 1<<10)
		n, _ := f.ReadAt(b, 0)
		return string(b[:n])
	}
	first := keys()
	p := begin(t, spec{app: "tickets", first: fd, env: []string{wire.EnvTickets + "=3", envRotation + "=1s"}})
	p.phase(wire.PhaseReady)
	p.comes("there is another key", func() bool { return keys() != first })
	p.drain(0, true)
	p.exits("exit status 0")

	p = begin(t, spec{app: "tickets", alone: true, env: []string{envRotation + "=1ms"}})
	p.exits("exit status 2")
	p.writes("bad configuration: ticket rotation 1ms: it must be at least 1s, or 0 for 12h0m0s")
}
