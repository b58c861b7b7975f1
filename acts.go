package handover

import (
	"context"
	"os"
	"syscall"

	"github.com/handover-go/handover/signals"
)

// This file is what signals lead to.

// scaleBy is what TTIN and TTOU ask for.
func (p *parent) scaleBy(n int) signals.Action {
	return func(ctx context.Context) error {
		group := p.cfg.mainGroup()
		count, err := p.set.ScaleBy(ctx, group, n)
		if err == nil {
			p.log.Info("scaled", "group", group, "count", count)
		}
		return err
	}
}

// signals says what each signal means.
func (p *parent) signals() signals.Map {
	m := signals.Map{
		syscall.SIGHUP: p.upgrade, syscall.SIGUSR2: p.upgrade,
		syscall.SIGTERM: signals.Stop, syscall.SIGINT: signals.Stop,
		syscall.SIGUSR1: p.set.Reopen, syscall.SIGTTIN: p.scaleBy(1),
	}
	if signals.StopsOutput() {
		p.log.Warn("TTOU is not caught: this terminal sends it for output from the background (stty tostop)")
	} else {
		m[syscall.SIGTTOU] = p.scaleBy(-1)
	}
	return m
}

// upgrade is what HUP asks for.
func (p *parent) upgrade(ctx context.Context) error {
	a := ask{done: make(chan error, 1)}
	p.upgrades.want(a)
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// relay passes on what reaches this process after it has been replaced. Stops are
// not passed on: systemd sends them to every process of the service, the anchor to
// the new parent again, and a second one would mean "at once".
func (p *parent) relay(sig os.Signal) {
	if sig != syscall.SIGTERM && sig != syscall.SIGINT && p.up.Relay(sig) {
		p.log.Info("signal passed on to the new parent", "signal", sig.String())
	}
}

// killAll is the second request to stop.
func (p *parent) killAll(sig os.Signal) {
	n, _ := sig.(syscall.Signal)
	if p.set == nil || !p.atOnce.CompareAndSwap(0, int32(n)) {
		os.Exit(128 + int(n))
	}
	p.set.Kill()
}
