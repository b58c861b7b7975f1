package worker

import (
	"fmt"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// FuzzInherited: of what its parent says in the environment, a worker takes for its name, or for a
// queue, only what is one.
func FuzzInherited(f *testing.F) {
	for _, seed := range []string{"web/1/2/3", "/1/1/1", "web/0/1/1", "web/1/1", "http=3,4", "http=3", "=3,4", "http=2,5", "a=b=3,4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		var st wire.State
		if err := parseWho(v, &st); err == nil {
			var again wire.State
			if err := parseWho(fmt.Sprintf("%s/%d/%d/%d", st.Group, st.Slot, st.ID, st.Generation), &again); err != nil ||
				again.Slot != st.Slot || again.ID != st.ID || again.Generation != st.Generation || again.Group != st.Group || min(st.Slot, st.ID, st.Generation) < 1 {
				t.Errorf("%q is %+v, and that is %+v", v, st, again)
			}
		}
		if name, give, take, err := parseQueue(v); err == nil && (name == "" || min(give, take) < 3) {
			t.Errorf("%q is queue %q, %d, %d", v, name, give, take)
		}
	})
}
