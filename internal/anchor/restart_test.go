package anchor

import (
	"testing"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	var b backoff
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		if got := b.next(time.Second); got != want*time.Millisecond {
			t.Errorf("wait %d: %v, want %v ms", i, got, want)
		}
	}
	b.failed = 1 << 30
	if got := b.next(0); got != maxWait {
		t.Errorf("after many: %v", got)
	}
	if got := b.next(goodTime); got != firstWait {
		t.Errorf("after a good one: %v", got)
	}
}

func TestUnexpected(t *testing.T) {
	t.Parallel()
	exit := func(code int) launch.Status { return launch.Status{Known: true, Code: code} }
	killed, unknown := launch.Status{Known: true, Code: -1, Signal: 9}, launch.Status{Code: -1}
	up, coming := ending{ready: true, served: true}, ending{served: true}
	for _, c := range []struct {
		status launch.Status
		ending
		want bool
	}{
		{killed, up, true}, {killed, coming, true}, {killed, ending{}, false},
		{killed, ending{ready: true, served: true, stops: 1}, false},
		{unknown, up, true}, {unknown, ending{}, false},
		{exit(0), up, false}, {exit(0), coming, false}, {exit(0), ending{served: true, lost: true}, true},
		{exit(1), up, false}, {exit(1), coming, true}, {exit(1), ending{}, false},
		{exit(2), up, true}, {exit(2), coming, true}, {exit(2), ending{}, false},
		{exit(143), up, false},
	} {
		c.ending.status = c.status
		if got := c.unexpected(); got != c.want {
			t.Errorf("%+v: %v", c.ending, got)
		}
	}
}
