package worker_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/home"
	"github.com/handover-go/handover/internal/wire"
)

// house is a home as a supervisor and parents hold it.
type house struct {
	t      *testing.T
	report int
	hall   *home.Hall
}

func newHouse(t *testing.T) *house {
	t.Helper()
	report, hear, err := home.Pair()
	if err != nil {
		t.Fatal(err)
	}
	hall, err := home.OpenHall(hear)
	unix.Close(hear)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t, report, hall}
	t.Cleanup(h.abandon)
	return h
}

// abandon closes all that there is of the home.
func (h *house) abandon() {
	if h.report >= 0 { // another test may have a descriptor of that number by now
		unix.Close(h.report)
		h.report = -1
	}
	h.hall.Close()
}

// worker starts one that serves and knows the house.
func (h *house) worker(env ...string) *process {
	h.t.Helper()
	p := h.begin(env...)
	p.phase(wire.PhaseReady)
	p.tell(wire.CmdGo)
	p.phase(wire.PhaseServing)
	return p
}

func (h *house) begin(env ...string) *process {
	h.t.Helper()
	fd, addr := heldSocket(h.t)
	p := begin(h.t, spec{
		app: "serve", sockets: []string{"http"}, fds: map[string]int{"http": fd}, first: h.report,
		env: append(env, wire.EnvHome+"=4", wire.EnvRecipe+"=cake"),
	})
	p.socks["http"] = addr
	return p
}

// arrives waits for a worker that has come home, and makes this process its parent.
func (h *house) arrives(p *process) home.Arrival {
	h.t.Helper()
	timer := time.AfterFunc(patience, h.hall.Halt)
	defer timer.Stop()
	a, err := h.hall.Next()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(a.Close)
	if p.conn, err = wire.NewConn(a.Opened[home.Channel]); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { p.conn.Close() })
	return a
}

// TestComesHome: a worker whose parent has died serves on, tells the next one who it is and
// what it does, obeys it, and does so again.
func TestComesHome(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := h.worker()
	for range 3 {
		p.conn.Close()
		a := h.arrives(p)
		if got := fmt.Sprintf("%s %d %d %d %s %t %t", a.Group, a.Slot, a.ID, a.Generation, a.Recipe, a.Pid == p.proc.Pid, a.Opened[home.Pidfd] != nil); got != "web 2 7 3 cake true true" {
			t.Error(got)
		}
		p.get("/") // serves also before anybody has said a word
		line, err := p.conn.Read()
		if cmd, _ := wire.Cmd(line); err != nil || cmd != wire.CmdMail && cmd != wire.CmdState {
			t.Errorf("%s: %v", line, err)
		}
		p.tell(wire.CmdWho)
	}
	p.get("/")
	for { // what it is said first may be its mail
		line, err := p.conn.Read()
		if err != nil {
			t.Fatal(err)
		}
		if cmd, _ := wire.Cmd(line); cmd == wire.CmdState {
			break
		}
	}
	p.drain(time.Minute, true)
	if last := p.exits("exit status 0"); last.Served < 4 {
		t.Errorf("%+v", last)
	}
}

// TestParentDiesBeforeItSpeaks: the next one finds the worker all the same.
func TestParentDiesBeforeItSpeaks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := h.worker()
	for range 3 {
		p.conn.Close()
		h.arrives(p)
	}
	p.get("/")
}

// ends waits for an end without a parent.
func (p *process) ends(want string) {
	p.t.Helper()
	p.conn.Close()
	p.exits(want)
}

// TestNobodyComes: in the end a worker drains, and finishes what it has.
func TestNobodyComes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		grace string
		do    func(h *house)
		says  string
	}{
		"grace":     {"50", func(*house) {}, "no other parent has come"},
		"abandoned": {"600000", (*house).abandon, "nobody keeps it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			p := h.worker(wire.EnvGrace + "=" + c.grace)
			end := p.hold()
			p.conn.Close()
			c.do(h)
			for limit := time.Now().Add(patience); !strings.Contains(p.output(), "msg=draining"); time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal("it does not drain")
				}
			}
			if err := end(); err != nil {
				t.Error(err)
			}
			p.ends("exit status 0")
			if !strings.Contains(p.output(), c.says) {
				t.Errorf("it does not say %q", c.says)
			}
		})
	}
}

// TestAbandonedLater: when the home ends while the worker waits, it waits no longer.
func TestAbandonedLater(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := h.worker(wire.EnvGrace + "=600000")
	p.conn.Close()
	h.arrives(p)
	p.conn.Close() // which has the channel now
	a, err := h.hall.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h.hall.Close()
	p.exits("exit status 0")
}

// TestStaysAway: who has not served, or need not wait for anybody, goes by itself.
func TestStaysAway(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(h *house) *process{
		"standby": func(h *house) *process {
			p := h.begin()
			p.phase(wire.PhaseReady)
			return p
		},
		"may exit": func(h *house) *process {
			p := h.worker()
			end := p.hold()
			p.drain(time.Minute, true)
			p.phase(wire.PhaseDraining)
			p.conn.Close()
			if err := end(); err != nil {
				h.t.Error(err)
			}
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			p := begin(h)
			p.ends("exit status 0")
			if _, ok, err := h.hall.Queued(); ok {
				t.Errorf("it has come home: %v", err)
			}
		})
	}
}

// TestDrainingComesHome: one that drains waits for a parent that lets it go.
func TestDrainingComesHome(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := h.worker()
	end := p.hold()
	p.drain(time.Minute, false)
	p.phase(wire.PhaseDraining)
	p.conn.Close()
	h.arrives(p)
	p.tell(wire.CmdExit)
	if line, err := p.conn.Read(); err != nil || !strings.Contains(string(line), "NODE_HANDOVER_") {
		t.Errorf("%s: %v", line, err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	for {
		if _, err := p.conn.Read(); errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	p.conn.Close()
	p.exits("exit status 0")
}

// TestRetiresAlone: a worker that is asked to go while it has no parent drains by itself.
func TestRetiresAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := h.worker()
	p.conn.Close()
	h.arrives(p) // who says nothing
	p.signal(syscall.SIGTERM)
	p.phaseOf(wire.PhaseExiting)
	p.conn.Close()
	p.exits("exit status 0")
}

// phaseOf is phase with other lines between.
func (p *process) phaseOf(want wire.Phase) {
	p.t.Helper()
	for {
		line, err := p.conn.Read()
		if err != nil {
			p.t.Fatal(err)
		}
		if strings.Contains(string(line), `"phase":"`+string(want)+`"`) {
			return
		}
	}
}
