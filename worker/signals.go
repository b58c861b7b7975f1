package worker

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/handover-go/handover/signals"
)

// errNotHere is what a worker says of signals that are its parent's.
var errNotHere = errors.New("this is a worker: upgrades are its parent's")

// signalMap is what the worker's actor acts on. Below a parent these are the stops
// alone: there is no terminal whose end a HUP could mean.
func (w *Worker) signalMap() signals.Map {
	m := signals.Map{syscall.SIGTERM: signals.Stop, syscall.SIGINT: signals.Stop}
	if w.conn == nil {
		notHere := func(context.Context) error { return errNotHere }
		m[syscall.SIGHUP], m[syscall.SIGUSR2] = notHere, notHere
		m[syscall.SIGUSR1] = func(context.Context) error { return w.reopen() }
	}
	return m
}

// otherSignals takes those that must not end a worker by their default action,
// until ctx ends. They stay caught then: whoever read this process's output may be
// gone, and a last log line must not change the exit status (os/signal, "SIGPIPE").
func (w *Worker) otherSignals(ctx context.Context) {
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	for {
		select {
		case sig := <-sigs:
			err := errNotHere
			switch sig {
			case syscall.SIGPIPE:
				continue
			case syscall.SIGUSR1:
				err = w.reopen()
			}
			if err != nil {
				w.log.Error("a signal's action failed", "signal", sig.String(), "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// reopen is what USR1 asks for.
func (w *Worker) reopen() error {
	if w.cfg.Reopen == nil {
		return nil
	}
	return w.cfg.Reopen()
}
