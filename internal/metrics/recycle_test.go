package metrics

import (
	"maps"
	"testing"

	"github.com/handover-go/handover/workerset"
)

// TestRecycled: a worker that had reached a limit was replaced, although nobody calls that a
// restart; one that was let go otherwise does not count.
func TestRecycled(t *testing.T) {
	b := newBook()
	for id, cause := range []string{"recycle", "recycle", ""} {
		b.observe(workerset.Change{Worker: workerset.Worker{Group: "web", ID: id + 1, State: exited, Cause: cause}, From: draining})
	}
	maps.DeleteFunc(b.Groups["web"].Restarts, func(_ string, n uint64) bool { return n == 0 })
	if got := b.Groups["web"].Restarts; len(got) != 1 || got["recycle"] != 2 {
		t.Errorf("%v", got)
	}
}
