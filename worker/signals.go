package worker

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/handover-go/handover/signals"
)

// signalMap is what a worker's signals mean. None of them kills it by its default
// action.
func (w *Worker) signalMap() signals.Map {
	notHere := func(context.Context) error { return errors.New("this is a worker: upgrades are its parent's") }
	return signals.Map{
		syscall.SIGTERM: signals.Stop, syscall.SIGINT: signals.Stop,
		syscall.SIGHUP: notHere, syscall.SIGUSR2: notHere,
		syscall.SIGUSR1: w.reopen,
	}
}

// reopen is what USR1 asks for.
func (w *Worker) reopen(context.Context) error {
	if w.cfg.Reopen == nil {
		return nil
	}
	return w.cfg.Reopen()
}

// ignorePipe is for a process whose output had a reader that may be gone, with its
// parent, or journald: a log line must not end a drain, nor change the exit status
// (os/signal, "SIGPIPE").
func ignorePipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
