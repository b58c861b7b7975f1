package signals

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestFlush: a signal that is sent before flush has arrived when it returns.
func TestFlush(t *testing.T) {
	for i := range 200 {
		var late []os.Signal
		a := newActor(Map{syscall.SIGUSR1: func(context.Context) error { return nil }},
			Late(func(sig os.Signal) { late = append(late, sig) }))
		a.marker = marker
		signal.Notify(a.signals, syscall.SIGUSR1)
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		a.stop(nil)
		a.flush()
		if len(late) != 1 {
			t.Fatalf("round %d: %v arrived", i, late)
		}
		signal.Stop(a.signals)
		a.terminal.Close()
	}
}
