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

// OnReopen adds fn to what is called at SIGUSR1, which 'handover reopen' sends to all
// workers, after Config.Reopen: to open a log file anew, or to look at certificates
// (certs.Pair.Reload). An error is logged.
func (w *Worker) OnReopen(fn func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reopens = append(w.reopens, fn)
}

// reopen is what USR1 asks for.
func (w *Worker) reopen(context.Context) error {
	w.mu.Lock()
	fns := w.reopens
	w.mu.Unlock()
	var errs []error
	if w.cfg.Reopen != nil {
		errs = append(errs, w.cfg.Reopen())
	}
	for _, fn := range fns {
		errs = append(errs, fn())
	}
	return errors.Join(errs...)
}

// ignorePipe is for a process whose output had a reader that may be gone, with its
// parent, or journald: a log line must not end a drain, nor change the exit status
// (os/signal, "SIGPIPE").
func ignorePipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
