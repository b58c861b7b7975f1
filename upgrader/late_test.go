//go:build linux

package upgrader

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/wire"
)

// What a new process has said counts, also when this one was stopped and its timers
// go first.
func TestSaysReady(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		yielded bool
		want    bool
	}{{"*", true, true}, {"", true, false}, {"x", true, false}, {"*", false, false}} {
		ours, theirs, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := wire.NewConn(ours)
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(c.text); err != nil {
			t.Fatal(err)
		}
		_ = r.SetReadDeadline(time.Unix(1, 0)) // as late as can be
		a := &attempt{conn: conn, ready: r}
		_, said, stop := a.read()
		s := succession{a: a, said: said, yielded: c.yielded}
		if got := s.saysReady(); got != c.want {
			t.Errorf("%q, yielded %v: %v", c.text, c.yielded, got)
		}
		stop()
		theirs.Close()
		w.Close()
	}
}

// lateContext should have ended, and its timer has not fired.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

func TestExpired(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, ErrTimeout)
	if err := expired(ctx); err != nil {
		t.Error(err)
	}
	if err := expired(lateContext{ctx}); err != ErrTimeout {
		t.Error(err)
	}
	cancel()
	if err := expired(ctx); err != context.Canceled {
		t.Error(err)
	}
}
