package anchor

import "testing"

// TestStatuses: those who have ended last are remembered, also by the next image, however many
// the one before has known.
func TestStatuses(t *testing.T) {
	t.Parallel()
	var s statuses
	for pid := range 3 * maxStatuses {
		s.put(1+pid, uint32(pid))
		var next statuses
		if pid%1000 == 0 || pid == 3*maxStatuses-1 {
			next.resume(s.m)
			next.put(1<<20, 7)
			if next.m[1<<20] != 7 || next.m[1+pid] != uint32(pid) || len(next.m) > maxStatuses {
				t.Fatalf("after %d: %d are remembered, the last as %d", pid, len(next.m), next.m[1<<20])
			}
		}
	}
	if len(s.m) != maxStatuses || len(s.order) != maxStatuses {
		t.Errorf("%d of %d", len(s.m), len(s.order))
	}
}
