//go:build linux

package workerset_test

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestDegraded: past the burst a worker that can go on does, and is replaced when it
// is its turn.
func TestDegraded(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Burst, c.Groups[0].Per = 1, 5*time.Second
	}).serve()
	h.get("/fail")
	h.state(1, "exited")
	w := h.state(2, "serving")
	h.get("/fail")
	h.state(2, "degraded")
	// And again: a failure while it does not know yet that it is forgiven is the same.
	h.waitStatus(func(g workerset.GroupStatus) bool { h.get("/fail"); return g.Failures >= 3 })
	if got := h.get("/"); got != strconv.Itoa(w.Pid) {
		t.Errorf("%s answers, not %d", got, w.Pid)
	}
	h.state(2, "condemned") // its turn
	h.state(3, "serving")
	if w := h.state(2, "exited"); w.Exit != "exit status 0" {
		t.Errorf("%+v", w)
	}
	if st := h.status(); st.Restarts != 2 || len(st.Workers) != 1 {
		t.Errorf("%+v", st)
	}
}

// TestFatalIsNotForgiven: what a worker can't go on after leads to its replacement,
// also past the burst, but later; it accepts meanwhile if it can.
func TestFatalIsNotForgiven(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/gopanic", "/exit", "/crash"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) {
				c.Groups[0].Burst, c.Groups[0].Per = 1, time.Second
			}).serve()
			for id := 1; id <= 3; id++ {
				h.state(id, "serving")
				h.waitStatus(func(g workerset.GroupStatus) bool { return len(g.Workers) == 1 && g.Workers[0].State == "serving" })
				h.get("/") // it has served
				h.waitStatus(func(g workerset.GroupStatus) bool { return g.Workers[0].Served > 0 })
				if resp, err := client.Get("http://" + h.addr + path); err == nil {
					resp.Body.Close()
				}
				h.state(id, "exited")
			}
			h.state(4, "serving")
			if st := h.status(); st.Failures != 3 || st.Restarts != 3 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestRetireBehindFailure: a worker that is told to go, while its failure may be
// forgiven, goes.
func TestRetireBehindFailure(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Burst, c.Groups[0].Per = 1, time.Hour
	}).serve()
	h.get("/fail")
	w := h.state(2, "serving")
	h.get("/fail")
	h.state(2, "degraded")
	if err := syscall.Kill(w.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.state(3, "serving")
	if w := h.state(2, "exited"); w.Cause != "retire" || w.Exit != "exit status 0" {
		t.Errorf("%+v", w)
	}
}
