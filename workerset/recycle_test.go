//go:build linux

package workerset_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/workerset"
)

// never is that worker's jitter of which a test says when it reaches a limit.
const never = -1

// beat is how often workers say how many requests they have served, and are looked at.
const beat = 100 * time.Millisecond

// strict is a load that forgives nothing.
func (h *harness) strict() *load.Load {
	h.t.Helper()
	l, err := load.Start(h.t.Context(), load.Config{
		Addr: h.addr, Rate: 10, WaitReady: patience, SlowMS: 50, StreamMS: 50, UploadMS: 50,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

// least is the fewest workers that accepted at any time since count of them did.
func (h *harness) least(count int) int {
	accepting, least := map[int]bool{}, -1
	for _, c := range h.all() {
		accepting[c.Worker.ID] = c.Worker.Accepts()
		n := 0
		for _, is := range accepting {
			if is {
				n++
			}
		}
		if least >= 0 {
			least = min(least, n)
		} else if n == count {
			least = n
		}
	}
	return least
}

// TestRecycle: workers that have reached a limit are replaced, one after the other, nobody
// notices, and nothing of it is a failure.
func TestRecycle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit  workerset.Recycle
		reason string
	}{
		"age":      {workerset.Recycle{MaxAge: time.Second}, `^age [0-9ms]+$`},
		"requests": {workerset.Recycle{MaxRequests: 40}, `^(3[6-9]|[4-9][0-9]|[0-9]{3}) requests$`},
		"memory":   {workerset.Recycle{MaxMemory: 1 << 20}, `^RSS [0-9.]+ MiB over 1 MiB$`}, // which is what none begins with
		"PSS":      {workerset.Recycle{MaxMemory: 1 << 20, PSS: true}, `^PSS [0-9.]+ MiB over 1 MiB$`},
	} {
		t.Run(name, func(t *testing.T) { // one load at a time is enough
			h := newSet(t, func(cfg *workerset.Config) {
				g := &cfg.Groups[0]
				g.Count, g.Heartbeat, g.Recycle, g.Env = 2, beat, c.limit, []string{do("always:demo")}
				g.MaxRestarts, g.Burst = 1, 1
			}).serve()
			l := h.strict()
			for id := 1; id <= 4; id++ {
				w := h.state(id, "exited")
				if w.Cause != "recycle" || !regexp.MustCompile(c.reason).MatchString(w.Reason) || w.Exit != "exit status 0" {
					t.Errorf("%+v", w)
				}
			}
			if err := h.set.Ready(h.ctx()); err != nil { // although there is always one under way
				t.Error(err)
			}
			if err := l.WaitEach(h.ctx(), 2); err != nil {
				t.Error(err)
			}
			r := l.Stop()
			if err := r.Check(); err != nil {
				t.Errorf("clients noticed: %v", err)
			}
			if n := h.least(2); n != 2 {
				t.Errorf("only %d workers accepted\n%s", n, h.story())
			}
			if n := h.most(); n > 3 {
				t.Errorf("up to %d workers at a time\n%s", n, h.story())
			}
			st := h.status()
			if st.Restarts != 0 || st.Failures != 0 || st.Halted != "" || len(st.Waiting) != 0 {
				t.Errorf("%+v", st)
			}
			died := func(d workerset.Death) bool {
				return d.ID == 1 && d.Cause == "recycle" && regexp.MustCompile(c.reason).MatchString(d.Reason)
			}
			if len(st.Deaths) < 4 || !slices.ContainsFunc(st.Deaths, died) && len(st.Deaths) < 8 {
				t.Errorf("%+v", st.Deaths)
			}
			log := h.log.String()
			if !strings.Contains(log, `msg="worker has reached a limit, it is being replaced" worker=web/1 id=1 `) || strings.Contains(log, "level=ERROR") {
				t.Errorf("the log says\n%s", log)
			}
			h.news.wait(t, func(ev workerset.Event) bool {
				return ev.Kind == workerset.EventExit && ev.ID == 1 && ev.Voluntary && ev.Cause == "recycle"
			})
			t.Logf("%d requests, %d workers", r.Started, len(h.started()))
		})
	}
}

// TestRecycleGrown: it is the one that has grown that goes, and it goes once.
func TestRecycleGrown(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(cfg *workerset.Config) {
		g := &cfg.Groups[0]
		g.Count, g.Heartbeat, g.Env = 2, beat, []string{do("always:demo")}
		g.Recycle.MaxMemory = 256 << 20
	}).serve()
	h.get("/grow?mb=300")
	c, _ := h.wait(0, func(c workerset.Change) bool { return c.Worker.State == "exited" })
	w := c.Worker
	if w.Cause != "recycle" || !regexp.MustCompile(`^RSS [2-9][0-9][0-9][0-9.]* MiB over 256 MiB$`).MatchString(w.Reason) {
		t.Errorf("%+v", w)
	}
	h.get("/")
	if n := len(h.started()); n != 3 || h.least(2) != 2 {
		t.Errorf("%d workers were started, and at least %d accepted\n%s", n, h.least(2), h.story())
	}
}

// TestRecycleProgram: one that knows nothing of this, and says nothing, is found to be too
// old, or to have grown, and is drained by its signal.
func TestRecycleProgram(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps  string
		limit  workerset.Recycle
		reason string
	}{
		"age":    {"catch;notify READY=1;term;exit 0", workerset.Recycle{MaxAge: time.Second}, "^age [0-9ms]+$"},
		"memory": {"catch;notify READY=1;term;grow 300;print grown;term;exit 0", workerset.Recycle{MaxMemory: 256 << 20}, "^RSS [0-9.]+ MiB over 256 MiB$"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newForeign(t, c.steps, func(cfg *workerset.Config) {
				g := &cfg.Groups[0]
				g.Heartbeat, g.Recycle, g.MaxRestarts, g.DrainTimeout = beat, c.limit, 1, time.Millisecond
			}).serve()
			if name == "memory" {
				if err := syscall.Kill(h.pids("serving")[0], syscall.SIGUSR2); err != nil {
					t.Fatal(err)
				}
			}
			w := h.state(1, "exited")
			if w.Cause != "recycle" || !regexp.MustCompile(c.reason).MatchString(w.Reason) || w.Exit != "exit status 0" {
				t.Errorf("%+v", w)
			}
			h.printed("got terminated")
			if n := h.least(1); n != 1 {
				t.Errorf("%d accepted\n%s", n, h.story())
			}
		})
	}
}

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
// before it.
func TestRecycleHangs(t *testing.T) {
	t.Parallel()
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
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if w := h.state(1, "exited"); w.Cause != "" {
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
