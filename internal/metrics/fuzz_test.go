package metrics

import (
	"testing"

	"github.com/handover-go/handover/internal/clock"
)

// FuzzTake: whatever the parent before has given, what can't be understood changes nothing, and
// the sum can be given to the next.
func FuzzTake(f *testing.F) {
	f.Add([]byte(`{"v":1,"groups":{"web":{"dead":{"accepted":3},"restarts":{"crash":1},"startSeconds":{"bounds":[1,2],"counts":[1,0,2],"sum":3}}},"workers":{"web/1/1/1":{"group":"web","counts":{"movedIn":1}}},"upgrades":{"done":2}}`))
	f.Add([]byte(`{"groups":{"":null},"upgradeSeconds":{"bounds":[2,1],"counts":[1]}}`))
	f.Fuzz(func(t *testing.T, state []byte) {
		b := newBook()
		if err := b.take(state); err != nil && (len(b.Groups) > 0 || len(b.Workers) > 0 || len(b.Upgrades) > 0) {
			t.Fatalf("%v, and yet %+v", err, b)
		}
		b.adopted()
		if len(b.Workers) > 0 {
			t.Errorf("there are %v", b.Workers)
		}
		given, err := b.give(clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		next := newBook()
		if err := next.take(given); err != nil {
			t.Errorf("%v: %s", err, given)
		}
	})
}
