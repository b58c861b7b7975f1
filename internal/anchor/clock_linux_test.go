package anchor

import (
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
)

// TestKeepsTime: another program of the anchor knows since when the parent is up, and until when
// what is left may live, whatever is done to the clock meanwhile.
func TestKeepsTime(t *testing.T) {
	t.Parallel()
	for _, d := range golden.Jumps {
		up, limit := time.Now().Add(-goodTime), time.Now().Add(10*time.Second)
		var s state
		s.note(up, map[int]time.Time{4711: limit})
		s = golden.Read[state](t, golden.Ahead([]byte(encode(s)), d))
		since, left := s.times(time.Now())
		if off := since.Sub(up); off != 0 {
			t.Errorf("%v: the parent is up for another %v", d, off)
		}
		if off := left[4711].Sub(limit); off != 0 || len(left) != 1 {
			t.Errorf("%v: what is left may live for another %v", d, off)
		}
	}
	now := time.Now()
	if up, left := (&state{}).times(now); !up.Equal(now) || len(left) != 0 {
		t.Errorf("nothing was said, and it is up since %v, and %v are left", up, left)
	}
}

// TestLeftOverJumps: what a dead parent has left has its time, and no more, also when the anchor
// becomes one of another program and the clock was set meanwhile.
func TestLeftOverJumps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ grace, ahead string }{
		"back": {"1h", "-24h"}, "forth": {"2s", "24h"}, // as the new program sees the times of the old one
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a := start(t, envGrace+"="+c.grace, envAhead+"="+c.ahead)
			a.notify("READY=1")
			left := w.spawn(a)
			a.tell("kill 9")
			a = w.accept()
			a.notify("READY=1")
			path := copyOfTest(t)
			b := w.succeed(a, path)
			w.become(path)
			b.notify("STATUS=it goes on")
			if name == "forth" {
				left.gone()
				w.logged("does not end: killed")
			} else {
				if got := left.ask("ping"); got != "pong" {
					t.Errorf("what is left says %q", got)
				}
				left.tell("exit 0")
				left.gone()
			}
			b.tell("exit 0")
			w.exit(0)
		})
	}
}
