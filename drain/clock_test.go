package drain

import (
	"strings"
	"testing"
)

// TestPauseKeepsTime: how long nothing is given away does not depend on the time of day, which
// may jump meanwhile.
func TestPauseKeepsTime(t *testing.T) {
	var d Drainer
	if left := d.paused(); left != 0 {
		t.Errorf("before: %v", left)
	}
	d.holdOn()
	if left := d.paused(); left <= 0 || left > stallTime {
		t.Errorf("%v", left)
	}
	if until := d.pausedUntil.Load().String(); !strings.Contains(until, " m=") {
		t.Errorf("it is by the clock: %s", until)
	}
}
