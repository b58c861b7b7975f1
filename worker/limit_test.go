//go:build linux

package worker_test

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/wire"
)

// now is the worker's state, by its next word.
func (p *process) now() wire.State {
	p.t.Helper()
	p.send(wire.Who{Cmd: wire.CmdWho})
	st, err := p.next()
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

func (p *process) active() int { return p.now().Active }

// comes waits for a number of connections.
func (p *process) comes(what string, ok func() bool) {
	p.t.Helper()
	for limit := time.Now().Add(patience); !ok(); {
		if time.Now().After(limit) {
			p.t.Fatalf("never: %s", what)
		}
	}
}

// A worker at its limit leaves new connections to its siblings, and when all are at it they
// wait, as long as it takes, until there is room.
func TestLimitOfAccepted(t *testing.T) {
	t.Parallel()
	s := newSiblings(t)
	workers := []*process{s.start(envMax + "=3"), s.start(envMax + "=3")}
	var keepers []keeper
	for range 6 {
		keepers = append(keepers, s.keeper())
	}
	for _, k := range keepers {
		if err := k.ask(); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range workers {
		n := 0 // an older word may be on its way
		p.comes(fmt.Sprintf("worker %d has all that it may have", i), func() bool { n = p.active(); return n >= 3 })
		if n > 3 {
			t.Errorf("worker %d has %d connections, want 3", i, n)
		}
	}
	last := s.keeper()
	answered := make(chan error, 1)
	go func() { answered <- last.ask() }()
	for range 50 {
		for _, k := range keepers {
			if err := k.ask(); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case err := <-answered:
		t.Errorf("one too many was served, %v", err)
	default:
	}
	keepers[0].Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// What moves goes to the worker that has room; when none has, it goes to one that has none.
func TestLimitOfMoved(t *testing.T) {
	t.Parallel()
	const n, limit = 30, 3
	for range 5 { // of a worker that the machine holds up, some are taken
		if with := limitOfMoved(t, n, limit); with <= limit+n/10 {
			return
		} else {
			t.Logf("%d connections are with who wants %d, and there was room", with, limit)
		}
	}
	t.Error("and again and again")
}

// limitOfMoved returns how many are with the worker that wants few.
func limitOfMoved(t *testing.T, n, limit int) (with int) {
	s := newSiblings(t)
	first := s.start()
	keepers := make([]keeper, n)
	for i := range keepers {
		keepers[i] = s.keeper()
		if err := keepers[i].ask(); err != nil {
			t.Fatal(err)
		}
	}
	small, large := s.start(fmt.Sprint(envMax, "=", limit)), s.start()
	first.move(wire.MoveGive)
	first.drain(patience, true)
	// What nobody takes for 50 ms comes back, and goes again.
	if st := first.exits("exit status 0"); st.MovedOut-st.MovedIn != n {
		t.Errorf("%d were given away, and %d have come back", st.MovedOut, st.MovedIn)
	}
	large.comes("all are there", func() bool { return small.active()+large.active() == n })
	with = small.active()
	large.move(wire.MoveGive)
	large.drain(patience, true)
	large.exits("exit status 0")
	small.comes("all are there", func() bool { return small.active() == n })
	for i, k := range keepers {
		if err := k.ask(); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	return with
}

// TestRequestsOfMoved: a request counts for the worker that has answered it, wherever its
// connection was accepted; of servers that don't tell of requests, the connection does where it
// was accepted.
func TestRequestsOfMoved(t *testing.T) {
	t.Parallel()
	for app, want := range map[string][2]int{"serve": {2, 3}, "stream": {1, 0}} {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			s := newSiblings(t)
			ask := func(k keeper) error {
				if app == "serve" {
					return k.ask()
				}
				_, err := k.line("one\n", "one\n")
				return err
			}
			first := s.startApp(app)
			k := s.keeper()
			for range 2 {
				if err := ask(k); err != nil {
					t.Fatal(err)
				}
			}
			second := s.startApp(app)
			first.move(wire.MoveGive)
			first.drain(patience, true)
			if st := first.exits("exit status 0"); st.Requests != want[0] {
				t.Errorf("the first one has %d requests, want %d", st.Requests, want[0])
			}
			for range 3 {
				if err := ask(k); err != nil {
					t.Fatal(err)
				}
			}
			if err := ask(s.keeper()); err != nil { // the second one's own
				t.Fatal(err)
			}
			n := 0
			second.comes("all are counted", func() bool { n = second.now().Requests; return n >= want[1]+1 })
			if n != want[1]+1 {
				t.Errorf("the second one has %d requests, want %d", n, want[1]+1)
			}
		})
	}
}

// line sends one, or the rest of one, and returns who has echoed it.
func (k keeper) line(rest, whole string) (pid string, err error) {
	_ = k.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k, rest); err != nil {
		return "", err
	}
	answer, err := k.br.ReadString('\n')
	if err != nil {
		return "", err
	}
	var text string
	if n, _ := fmt.Sscan(answer, &pid, &text); n != 2 || text+"\n" != whole {
		return "", fmt.Errorf("answer %q, want that of %q", answer, whole)
	}
	return pid, nil
}

// A panic of a handler is a failure of the worker: its other connections go on, and move to
// the next one, with half a line.
func TestStreamPanics(t *testing.T) {
	t.Parallel()
	s := newSiblings(t)
	first := s.startApp("stream")
	k, unlucky := s.keeper(), s.keeper()
	if _, err := k.line("one\ntw", "one\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := unlucky.line("panic\n", ""); !errors.Is(err, io.EOF) {
		t.Errorf("after a panic: %v", err)
	}
	if st := first.cause(wire.CauseHandlerPanic); st.Active != 1 && st.Active != 2 {
		t.Errorf("%+v", st)
	}
	second := s.startApp("stream")
	first.move(wire.MoveGive)
	first.drain(patience, true)
	first.exits("exit status 1")
	if pid, err := k.line("o\n", "two\n"); err != nil || pid != fmt.Sprint(second.proc.Pid) {
		t.Errorf("answered by %s, not %d: %v", pid, second.proc.Pid, err)
	}
}

// Connections that are queued with their state, up to a large one, for a worker that is
// killed before it takes them, are not lost.
func TestStreamsOutliveTheirTaker(t *testing.T) {
	t.Parallel()
	s := newSiblings(t)
	first := s.startApp("stream")
	const n = 10
	keepers := make([]keeper, n)
	half := func(i int) string { return fmt.Sprintf("%0*d", 1+2000*i, i) }
	for i := range keepers {
		keepers[i] = s.keeper()
		if _, err := keepers[i].line("one\n"+half(i), "one\n"); err != nil {
			t.Fatal(err)
		}
	}
	victim := s.startApp("stream")
	if err := procs.Freeze(t.Context(), victim.proc.Pid); err != nil {
		t.Fatal(err)
	}
	first.move(wire.MoveGive)
	first.drain(patience, true)
	first.comes("some are given away", func() bool { return first.now().MovedOut > 0 })
	victim.signal(syscall.SIGKILL)
	victim.exits("killed by SIGKILL")
	next := s.startApp("stream")
	first.exits("exit status 0")
	for i, k := range keepers {
		if pid, err := k.line("!\n", half(i)+"!\n"); err != nil || pid != fmt.Sprint(next.proc.Pid) {
			t.Errorf("connection %d: answered by %s, not %d: %.200v", i, pid, next.proc.Pid, err)
		}
	}
}
