//go:build linux

package workerset_test

import (
	"testing"

	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/workerset"
)

// TestFormerCounts: what was counted in the first version of the format goes on.
func TestFormerCounts(t *testing.T) {
	t.Parallel()
	for file, deaths := range map[string]int{"estate.v1.json": 0, "estate.json": 1} {
		h := newSet(t, func(c *workerset.Config) { c.Trial = true }).serve()
		if err := h.set.Commit(h.ctx(), workerset.Estate{State: golden.Lines(t, file)[0]}); err != nil {
			t.Fatal(err)
		}
		if err := h.set.Ready(h.ctx()); err != nil {
			t.Fatal(err)
		}
		if st := h.status(); st.Count != 3 || st.Restarts != 5 || st.Failures != 2 || len(h.pids("serving")) != 3 {
			t.Errorf("%+v", st)
		} else if len(st.Deaths) != deaths || deaths > 0 && st.Deaths[0].Reason != "killed by SIGKILL" {
			t.Errorf("deaths %+v", st.Deaths)
		}
	}
}
