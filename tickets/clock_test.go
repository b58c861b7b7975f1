package tickets

import (
	"testing"
	"time"

	"github.com/handover-go/handover/internal/clock"
)

// TestKeepsTime: keys are of a clock that nobody sets. By the time of day, a key would have a
// time at which this machine did not run.
func TestKeepsTime(t *testing.T) {
	before := int64(clock.SinceBoot())
	f := newFile(t)
	b, err := read(f)
	if err != nil {
		t.Fatal(err)
	}
	k := share(t, f, Config{Every: time.Hour})
	now := k.cfg.now().UnixNano()
	after := int64(clock.SinceBoot())
	if from := k.ring[0].from; from < before || from > now || now > after {
		t.Errorf("the key is of %d, and now is %d, between %d and %d", from, now, before, after)
	}
	if k.ring.format() != b {
		t.Error("the first key was not good")
	}
}
