//go:build linux

package workerset_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// failing is a set of workers with a limit of age, whose next ones do something else.
func failing(t *testing.T, what string, change func(*workerset.Group)) (h *harness, say func(string)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "what")
	say = func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	say("serve")
	h = newSet(t, func(c *workerset.Config) {
		g := &c.Groups[0]
		g.Env, g.Recycle, g.MaxRestarts, g.DrainTimeout = []string{do("file:" + file)}, workerset.Recycle{MaxAge: time.Second, Jitter: never}, 1, time.Second
		if change != nil {
			change(g)
		}
	}).serve()
	say(what)
	return h, say
}

// TestRecycleFails: a worker whose replacement can't start goes on, and that is tried
// again, later and later. Nobody who waits for the set waits for that.
func TestRecycleFails(t *testing.T) {
	t.Parallel()
	h, say := failing(t, "exit at start", func(g *workerset.Group) { g.Count = 2 })
	pids := h.pids("serving")
	for id := 3; id <= 6; id++ {
		if w := h.state(id, "exited"); w.Cause != "exit at start" || w.Slot != h.state(3, "exited").Slot {
			t.Errorf("%+v", w)
		}
	}
	for _, wait := range []string{"wait=100ms failures=1", "wait=200ms failures=2", "wait=400ms failures=3", "wait=800ms failures=4"} {
		if !strings.Contains(h.log.String(), wait) {
			t.Errorf("the log does not say %q", wait)
		}
	}
	for _, msg := range []string{"worker has reached a limit, it is being replaced", "worker goes on, past its limit: its replacement has come to nothing"} {
		if n := strings.Count(h.log.String(), msg); n < 4 {
			t.Errorf("%d times it says %q", n, msg)
		}
	}
	if err := h.set.Ready(h.ctx()); err != nil {
		t.Error(err)
	}
	if got := h.pids("serving"); !slices.Equal(got, pids) {
		t.Errorf("%v served, now %v do", pids, got)
	}
	if st := h.status(); st.Halted != "" || st.Restarts != 0 || st.Failures < 4 {
		t.Errorf("%+v", st)
	}
	say("serve")
	for _, pid := range pids {
		if w := h.exited(pid); w.Cause != "recycle" || !strings.HasPrefix(w.Reason, "age ") {
			t.Errorf("%+v", w)
		}
	}
	if n := h.least(2); n != 2 {
		t.Errorf("%d accepted\n%s", n, h.story())
	}
}

// TestRecycleHangs: nobody waits for a replacement that does not come, and a restart goes
// before it, of all workers or of one.
func TestRecycleHangs(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(*harness) error{
		"all": func(h *harness) error { return h.set.Restart(h.ctx()) },
		"one": func(h *harness) error { return h.set.RestartWorker(h.ctx(), workerset.Which{Group: "web", Slot: 1}) },
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); recycleHangs(t, restart) })
	}
}

func recycleHangs(t *testing.T, restart func(*harness) error) {
	h, say := failing(t, "slow start", nil)
	h.printed("starts slowly")
	if err := h.set.Ready(h.ctx()); err != nil {
		t.Error(err)
	}
	if err := h.set.Scale(h.ctx(), "web", 1); err != nil {
		t.Error(err)
	}
	if got := h.pids("serving"); len(got) != 1 || len(h.pids("starting")) != 1 {
		t.Errorf("%v serve, %v start", got, h.pids("starting"))
	}
	say("serve")
	if err := restart(h); err != nil {
		t.Fatal(err)
	}
	if w := h.state(1, "exited"); w.Cause != "" || w.Let != "restart" {
		t.Errorf("%+v", w)
	}
	if n := h.least(1); n != 1 {
		t.Errorf("%d accepted\n%s", n, h.story())
	}
}

// TestRecycleAndFail: who fails while its replacement is on the way is replaced by that,
// or by the next one, and it was a failure.
func TestRecycleAndFail(t *testing.T) {
	t.Parallel()
	h, say := failing(t, "slow start", func(g *workerset.Group) { g.MaxRestarts = 0 })
	h.printed("starts slowly")
	say("serve")
	h.get("/fail")
	h.state(1, "condemned")
	pid := h.pids("starting")[0]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if w := h.exited(pid); w.ID != 2 || w.Cause != "exit at start" {
		t.Errorf("%+v", w)
	}
	h.state(3, "serving")
	if w := h.state(1, "exited"); w.Cause != "error" {
		t.Errorf("%+v", w)
	}
}

// TestRecycleOverUpgrade: the next generation replaces whoever was about to be recycled, as
// it does all, and remembers who was.
func TestRecycleOverUpgrade(t *testing.T) {
	t.Parallel()
	h, say := failing(t, "serve", nil)
	h.state(1, "exited")
	say("slow start")
	h.printed("starts slowly")
	serving, starting := h.status().Workers[0], h.pids("starting")[0]
	next := h.trial(nil)
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	next.exited(starting)
	if err := next.set.Drained(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if w := next.exited(serving.Pid); w.Cause != "" || !w.Started.Equal(serving.Started) {
		t.Errorf("%+v, before %+v", w, serving)
	}
	if st := next.status(); len(st.Deaths) == 0 || st.Deaths[0].Cause != "recycle" || st.Deaths[0].ID != 1 || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
}

// TestRecycleWaits: nobody is recycled while a roll has stopped, whatever it has reached.
func TestRecycleWaits(t *testing.T) {
	t.Parallel()
	h, say := failing(t, "serve", func(g *workerset.Group) {
		g.Count, g.Heartbeat, g.Recycle = 2, beat, workerset.Recycle{MaxRequests: 10, Jitter: never}
	})
	say("exit at start")
	if err := h.set.Restart(h.ctx()); err == nil {
		t.Fatal("it did not stop")
	}
	h.state(3, "exited")
	h.waitStatus(func(g workerset.GroupStatus) bool {
		h.get("/")
		return !slices.ContainsFunc(g.Workers, func(w workerset.Worker) bool { return w.Requests < 20 })
	})
	if n := len(h.started()); n != 3 {
		t.Errorf("%d workers were started\n%s", n, h.story())
	}
	say("serve")
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Error(err)
	}
	if w := h.state(1, "exited"); w.Cause != "" {
		t.Errorf("%+v", w)
	}
}
