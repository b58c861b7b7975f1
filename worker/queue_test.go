//go:build linux

package worker_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/moving"
	"github.com/handover-go/handover/internal/wire"
)

// siblings are workers of one socket and one queue.
type siblings struct {
	t     *testing.T
	fd    int
	addr  string
	queue []int
}

func newSiblings(t *testing.T) *siblings {
	t.Helper()
	s := &siblings{t: t}
	s.fd, s.addr = heldSocket(t)
	give, take, err := moving.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(give); unix.Close(take) })
	s.queue = []int{give, take}
	return s
}

// start starts one more, which serves.
func (s *siblings) start(env ...string) *process {
	s.t.Helper()
	return s.startApp("serve", env...)
}

func (s *siblings) startApp(app string, env ...string) *process {
	s.t.Helper()
	p := begin(s.t, spec{app: app, sockets: []string{"http"}, fds: map[string]int{"http": s.fd}, queue: s.queue, env: env})
	p.phase(wire.PhaseReady)
	p.tell(wire.CmdGo)
	p.phase(wire.PhaseServing)
	return p
}

func (p *process) move(m wire.Move) {
	p.t.Helper()
	p.send(wire.Moves{Cmd: wire.CmdMoves, Do: m})
}

// keeper is a client that keeps its connection.
type keeper struct {
	net.Conn
	br *bufio.Reader
}

func (s *siblings) keeper() keeper {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return keeper{c, bufio.NewReader(c)}
}

// ask makes a request. That the connection will be closed is an error.
func (k keeper) ask() error {
	_ = k.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(k.br, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.Close || string(b) != "ok\n") {
		err = fmt.Errorf("%q, %v", b, resp.Header)
	}
	return err
}

// What is queued for a worker that hangs is served by whoever has given it away, and when
// that one is killed it goes to the next one.
func TestQueueOutlivesItsTaker(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 20} { // fewer than the queue has room for, and more
		t.Run(strconv.Itoa(n), func(t *testing.T) { t.Parallel(); queueOutlivesItsTaker(t, n) })
	}
}

func queueOutlivesItsTaker(t *testing.T, n int) {
	s := newSiblings(t)
	first := s.start()
	keepers := make([]keeper, n)
	for i := range keepers {
		keepers[i] = s.keeper()
		if err := keepers[i].ask(); err != nil {
			t.Fatal(err)
		}
	}
	victim := s.start()
	if err := procs.Freeze(t.Context(), victim.proc.Pid); err != nil {
		t.Fatal(err)
	}
	first.move(wire.MoveGive)
	first.drain(patience, true)
	// Nobody takes them: who gives them away goes on serving them.
	for i, k := range keepers {
		if err := k.ask(); err != nil {
			t.Errorf("connection %d, taker frozen: %v", i, err)
		}
	}
	victim.signal(syscall.SIGKILL)
	victim.exits("killed by SIGKILL")
	s.start()
	if st := first.exits("exit status 0"); st.MovedOut-st.MovedIn != len(keepers) {
		t.Errorf("%d connections were given away, and %d came back, want %d to be gone", st.MovedOut, st.MovedIn, len(keepers))
	}
	for i, k := range keepers {
		if err := k.ask(); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// A new parent takes a worker for one that serves until it has heard that it drains.
// What it says meanwhile closes no connection.
func TestStayInADrain(t *testing.T) {
	t.Parallel()
	s := newSiblings(t)
	first := s.start()
	k := s.keeper()
	if err := k.ask(); err != nil {
		t.Fatal(err)
	}
	first.move(wire.MoveKeep)
	first.drain(patience, true)
	first.phase(wire.PhaseDraining)
	first.move(wire.MoveStay)
	for range 200 { // it obeys during the first of them
		if err := k.ask(); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	first.move(wire.MoveGive)
	if st := first.exits("exit status 0"); st.MovedOut-st.MovedIn != 1 {
		t.Errorf("%d connections were given away, and %d came back, want 1 to be gone", st.MovedOut, st.MovedIn)
	}
	if err := k.ask(); err != nil {
		t.Error(err)
	}
}
