package workerset

import (
	"fmt"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// FuzzNames: what names a worker, in a descriptor's name, a program's message or an operator's
// words, names one, and the same when it is written again.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"web/1/2/3/4711", "web/1", "4711", "parent", "all", "group:web", "any:a/b", "a/b/1", "/1", "web/01", "web/-1", "web/1/1/1/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if group, n, err := parseIdentity(s); err == nil {
			again := fmt.Sprintf("%s/%d/%d/%d/%d", group, n[0], n[1], n[2], n[3])
			if group2, n2, err := parseIdentity(again); err != nil || group2 != group || n2 != n || min(n[0], n[1], n[2], n[3]) < 1 {
				t.Errorf("%q is %q, which is %q, %v, %v", s, again, group2, n2, err)
			}
		}
		if w, err := ParseWhich(s); err == nil {
			if w2, err := ParseWhich(fmt.Sprintf("%s/%d", w.Group, w.Slot)); w.Pid == 0 && (err != nil || w2 != w || w.Slot < 1) || w.Pid < 0 {
				t.Errorf("%q is %+v, which is %+v, %v", s, w, w2, err)
			}
		}
		if to, err := parseTo(s); err == nil && (to.To == wire.ToSlot && (to.Group == "" || to.Slot < 1) || (to.To == wire.ToGroup || to.To == wire.ToAny) && to.Group == "") {
			t.Errorf("%q is %+v", s, to)
		}
	})
}
