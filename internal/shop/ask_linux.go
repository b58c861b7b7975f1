package shop

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
)

// Status is what the service says of itself; it has to.
func (s *Shop) Status() control.Status {
	s.t.Helper()
	st, _, err := s.Control.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// Parent is the pid of the one that decides.
func (s *Shop) Parent() int {
	s.t.Helper()
	return s.Status().Pid
}

// Upgrade asks for one, which has to work.
func (s *Shop) Upgrade() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), Patience)
	defer cancel()
	ev, err := s.Control.Upgrade(ctx, control.WaitServe, func(control.Event) {})
	if err != nil || ev.Result != control.Done && ev.Result != control.Probation {
		s.t.Errorf("the next upgrade: %+v, %v", ev, err)
	}
}

// Settled says what is not as it should be, "" if nothing: each group is complete, in one
// generation, there is no other process, and the PID file names the parent. Without an anchor
// there is none.
func (s *Shop) Settled(anchored bool) string {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	st, _, err := s.Control.Status(ctx)
	if err != nil {
		return err.Error()
	}
	if b, err := os.ReadFile(pidPath(s.Dir)); err != nil || string(b) != fmt.Sprintln(st.Pid) {
		return fmt.Sprintf("the parent is %d, the PID file says %q, %v", st.Pid, b, err)
	}
	want := []int{st.Pid}
	if anchored {
		want = append(want, s.Anchor)
	}
	for _, g := range st.Groups {
		for _, w := range g.Workers {
			want = append(want, w.Pid)
			if w.State != "serving" || w.Stale || w.Generation != st.Generation {
				return fmt.Sprintf("worker %s/%d, pid %d, of generation %d is %s", w.Group, w.Slot, w.Pid, w.Generation, w.State)
			}
		}
		if len(g.Workers) != g.Count {
			return fmt.Sprintf("group %s has %d workers, not %d", g.Name, len(g.Workers), g.Count)
		}
	}
	var have []int
	for _, p := range s.Processes() {
		have = append(have, p.PID)
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		return fmt.Sprintf("the processes are %v, the service knows of %v", have, want)
	}
	if st.Upgrading {
		return "an upgrade is under way"
	}
	all, err := procs.List()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range all {
		if p.State == 'Z' && slices.Contains(have, p.PPID) {
			return fmt.Sprintf("process %d is a zombie, and %d does not reap it", p.PID, p.PPID)
		}
	}
	return ""
}

// Settle waits until it is so.
func (s *Shop) Settle(anchored bool) {
	s.t.Helper()
	limit := time.Now().Add(SettleTime)
	for {
		what := s.Settled(anchored)
		if what == "" {
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("after %v: %s", SettleTime, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Flat checks that a process has no more descriptors than before, but for a connection or two.
func (s *Shop) Flat(what string, pid, before int) {
	s.t.Helper()
	limit := time.Now().Add(SettleTime)
	for s.Descriptors(pid) > before+2 {
		if time.Now().After(limit) {
			fds, _ := procs.FDs(pid)
			s.t.Errorf("%s had %d descriptors, and has %d: %v", what, before, len(fds), fds)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Loss is what clients may lose with a process: what it had at one moment.
type Loss struct {
	at    time.Time
	peers map[string]bool
}

// Excuse takes out of a result what was lost so.
func (l Loss) Excuse(r load.Result) load.Result { return r.ExceptAt(l.at, l.peers) }

// Freeze stops a process (SIGSTOP), and returns what clients lose if it does not go on. They
// are a web worker's alone.
func (s *Shop) Freeze(pid int) (l Loss, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), Patience)
	defer cancel()
	err = procs.Freeze(ctx, pid)
	l.at = time.Now()
	if err == nil && isWeb(role(pid)) {
		l.peers, err = procs.Peers(pid)
	}
	return l, err
}

// Kill is Freeze that kills, and returns when the process has ended.
func (s *Shop) Kill(pid int) (Loss, error) {
	l, err := s.Freeze(pid)
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	for err == nil && alive(pid) {
		time.Sleep(time.Millisecond)
	}
	return l, err
}

func isWeb(role string) bool { return strings.HasPrefix(role, "worker web/") }

// alive reports whether a process has not ended.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && state[0] != 'Z' && state[0] != 'X'
}

// Stop ends the service, of which nothing may be left.
func (s *Shop) Stop(anchored bool) {
	s.t.Helper()
	pid := s.Anchor
	if !anchored {
		pid = s.Parent()
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.Ends()
}
