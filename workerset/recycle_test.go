//go:build linux

package workerset_test

import (
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
