package signals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// watched is an actor that runs in a bubble and gets its signals from the test.
func watched(t *testing.T, m Map, opts ...Option) (*actor, <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	a := newActor(m, opts...)
	go a.watch(ctx)
	outcome := make(chan error, 1)
	go func() { outcome <- a.run() }()
	t.Cleanup(func() { cancel(); synctest.Wait() })
	synctest.Wait()
	return a, outcome
}

// job is an action that runs until it is told to end.
type job struct {
	runs int
	ctx  context.Context
	end  chan error
}

func newJob() *job { return &job{end: make(chan error)} }

func (j *job) run(ctx context.Context) error {
	j.runs++
	j.ctx = ctx
	return <-j.end
}

func TestCollapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hup, usr := newJob(), newJob()
		a, _ := watched(t, Map{syscall.SIGHUP: hup.run, syscall.SIGUSR1: usr.run})
		for range 10 {
			a.signals <- syscall.SIGHUP
			synctest.Wait()
		}
		a.signals <- syscall.SIGUSR1
		synctest.Wait()
		if hup.runs != 1 || usr.runs != 0 {
			t.Fatalf("%d and %d runs, want one action at a time", hup.runs, usr.runs)
		}
		hup.end <- nil
		synctest.Wait()
		if hup.runs != 2 || usr.runs != 0 {
			t.Fatalf("%d and %d runs, want a second HUP", hup.runs, usr.runs)
		}
		hup.end <- errors.New("this one failed")
		synctest.Wait()
		if hup.runs != 2 || usr.runs != 1 {
			t.Fatalf("%d and %d runs, want USR1 last", hup.runs, usr.runs)
		}
		usr.end <- nil
	})
}

func TestStopIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hup := newJob()
		a, outcome := watched(t, Map{syscall.SIGHUP: hup.run, syscall.SIGTERM: Stop})
		a.signals <- syscall.SIGHUP
		synctest.Wait()
		a.signals <- syscall.SIGHUP // waits, and must not run any more
		a.signals <- syscall.SIGTERM
		synctest.Wait()
		if hup.ctx.Err() == nil {
			t.Fatal("the running action was not told")
		}
		select {
		case err := <-outcome:
			t.Fatalf("execute returned %v while an action ran", err)
		default:
		}
		hup.end <- hup.ctx.Err()
		err := <-outcome
		var stop *StopError
		if !errors.As(err, &stop) || stop.Signal != syscall.SIGTERM || stop.Terminal || !errors.Is(err, ErrStop) {
			t.Errorf("execute: %v", err)
		}
		if hup.runs != 1 {
			t.Errorf("%d runs", hup.runs)
		}
	})
}

// Even while the action that the first stop has cancelled goes on.
func TestAtOnceDuringAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hup := newJob()
		var got []os.Signal
		a, outcome := watched(t, Map{syscall.SIGHUP: hup.run, syscall.SIGTERM: Stop},
			AtOnce(func(sig os.Signal) { got = append(got, sig) }))
		for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
			a.signals <- sig
			synctest.Wait()
		}
		if len(got) != 1 || got[0] != syscall.SIGINT {
			t.Errorf("at once: %v", got)
		}
		hup.end <- nil
		if err := <-outcome; !errors.Is(err, ErrStop) {
			t.Error(err)
		}
	})
}

// The copy that timeout(1) sends is not a second signal; one that comes later is.
func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []os.Signal
		a, outcome := watched(t, Map{syscall.SIGTERM: Stop}, AtOnce(func(sig os.Signal) { got = append(got, sig) }))
		a.signals <- syscall.SIGTERM
		time.Sleep(echoTime - 1)
		a.signals <- syscall.SIGTERM
		synctest.Wait()
		if err := <-outcome; !errors.Is(err, ErrStop) || len(got) != 0 {
			t.Errorf("%v, at once: %v", err, got)
		}
		time.Sleep(time.Nanosecond)
		a.signals <- syscall.SIGTERM
		a.signals <- syscall.SIGINT
		synctest.Wait()
		if want := []os.Signal{syscall.SIGTERM, syscall.SIGINT}; !slices.Equal(got, want) {
			t.Errorf("at once: %v, want %v", got, want)
		}
	})
}

// A log that nobody reads (Ctrl-S) does not keep the process alive.
func TestAtOnceWithStalledLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan os.Signal, 1)
		stalled := make(chan struct{})
		t.Cleanup(func() { close(stalled); synctest.Wait() })
		a, outcome := watched(t, Map{syscall.SIGTERM: Stop}, AtOnce(func(sig os.Signal) { ended <- sig }),
			Logger(slog.New(slog.NewTextHandler(stall(stalled), nil))))
		a.signals <- syscall.SIGTERM
		<-outcome
		a.signals <- syscall.SIGINT
		if got := <-ended; got != syscall.SIGINT {
			t.Error(got)
		}
	})
}

// stall is a writer that waits.
type stall <-chan struct{}

func (s stall) Write(p []byte) (int, error) { <-s; return len(p), nil }

// An action waits for execute: the program is not yet what an upgrade replaces.
func TestActionWaitsForExecute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		a := newActor(Map{syscall.SIGHUP: func(context.Context) error { runs++; return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		go a.watch(ctx)
		a.signals <- syscall.SIGHUP
		synctest.Wait()
		if runs != 0 {
			t.Error("the action ran before execute")
		}
		outcome := make(chan error)
		go func() { outcome <- a.run() }()
		synctest.Wait()
		if runs != 1 {
			t.Errorf("%d runs", runs)
		}
		cancel()
		<-outcome
	})
}

// Signals that nothing acts on any more, each told once.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hup := newJob()
		var late, atOnce []os.Signal
		a, outcome := watched(t, Map{syscall.SIGHUP: hup.run, syscall.SIGTERM: Stop},
			Late(func(sig os.Signal) { late = append(late, sig) }),
			AtOnce(func(sig os.Signal) { atOnce = append(atOnce, sig) }))
		a.signals <- syscall.SIGHUP
		synctest.Wait()
		a.signals <- syscall.SIGHUP // waits
		synctest.Wait()
		poke(a.interrupt)
		synctest.Wait()
		hup.end <- nil
		if err := <-outcome; err != nil {
			t.Error(err)
		}
		for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
			a.signals <- sig
			synctest.Wait()
		}
		if got, want := fmt.Sprint(late), fmt.Sprint([]os.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM}); got != want {
			t.Errorf("late: %s, want %s", got, want)
		}
		if len(atOnce) != 1 || hup.runs != 1 {
			t.Errorf("at once: %v, %d runs", atOnce, hup.runs)
		}
	})
}

func TestActionAsksForStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, outcome := watched(t, Map{syscall.SIGUSR1: func(context.Context) error {
			return fmt.Errorf("saved everything: %w", ErrStop)
		}})
		a.signals <- syscall.SIGUSR1
		if err := <-outcome; !errors.Is(err, ErrStop) {
			t.Error(err)
		}
	})
}

func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hup := newJob()
		a, outcome := watched(t, Map{syscall.SIGHUP: hup.run})
		a.signals <- syscall.SIGHUP
		synctest.Wait()
		poke(a.interrupt)
		poke(a.interrupt)
		synctest.Wait()
		hup.end <- hup.ctx.Err()
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	})
}

func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	execute, _ := Actor(ctx, Map{syscall.SIGUSR2: Stop})
	why := errors.New("no more")
	cancel(why)
	if err := execute(); err != why {
		t.Errorf("execute: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		m    Map
		want string
	}{
		{nil, ""},
		{Map{syscall.SIGHUP: Stop}, ""},
		{Map{syscall.SIGHUP: nil}, "signals: bad map: SIGHUP has no action: give it one or remove it"},
		{Map{nil: Stop}, "signals: bad map: an entry has no signal"},
		{Map{syscall.SIGKILL: Stop}, "signals: bad map: SIGKILL can't be caught: remove it"},
		{Map{syscall.SIGSTOP: Stop}, "signals: bad map: SIGSTOP can't be caught: remove it"},
	} {
		execute, interrupt := Actor(t.Context(), test.m)
		interrupt(nil)
		err := execute()
		if got := fmt.Sprint(err); test.want == "" && err != nil || test.want != "" && (got != test.want || !errors.Is(err, ErrMap)) {
			t.Errorf("%v: %v, want %q", test.m, err, test.want)
		}
	}
}

func TestTerminalLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		var there atomic.Value // the actor's goroutine reads it
		set := func(err syscall.Errno) { there.Store(err) }
		set(0)
		a := newActor(Map{syscall.SIGHUP: func(context.Context) error { runs++; return nil }})
		a.terminal = newTerminal(func() error {
			if err := there.Load().(syscall.Errno); err != 0 {
				return err
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		go a.watch(ctx)
		outcome := make(chan error, 1)
		go func() { outcome <- a.run() }()

		a.signals <- syscall.SIGHUP
		synctest.Wait()
		set(unix.EMFILE) // proves nothing
		a.signals <- syscall.SIGHUP
		synctest.Wait()
		set(unix.ENXIO) // and nobody sent HUP
		<-time.After(2*interval + time.Second)
		synctest.Wait()
		a.signals <- syscall.SIGHUP
		synctest.Wait()
		if runs != 3 {
			t.Errorf("%d upgrades, want 3", runs)
		}
		cancel()
		if err := <-outcome; err != context.Canceled {
			t.Error(err)
		}
	})
}
