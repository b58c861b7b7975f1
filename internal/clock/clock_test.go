package clock

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
)

// written is what another process reads that has come with r.
type written struct {
	Clock Reading   `json:"clock,omitzero"`
	At    time.Time `json:"at,omitzero"`
}

// send is w on its way from a process whose time of day is ahead by d.
func send(t *testing.T, w written, d time.Duration) written {
	t.Helper()
	return golden.Read[written](t, golden.Ahead(golden.JSON(t, w), d))
}

// TestJumps: whatever is done to the clock between two processes, and however often, the second
// one knows when it was, to the nanosecond.
func TestJumps(t *testing.T) {
	began := time.Now()
	for _, since := range []time.Duration{-90 * time.Minute, 0, 1, 25 * time.Hour, 400 * 24 * time.Hour} {
		at := began.Add(-since)
		for _, d := range golden.Jumps {
			got := at
			for range 5 {
				r := Now()
				w := send(t, written{r, r.Note(got)}, d)
				got = w.Clock.Moment(w.At)
			}
			if got.Sub(at) != 0 || Up(got) != Up(at) {
				t.Errorf("%v ago, and a clock that is ahead by %v: off by %v", since, d, got.Sub(at))
			}
			// As it is shown here.
			if off := got.Round(0).Sub(at.Round(0)); off.Abs() > time.Second {
				t.Errorf("%v ago, and a clock that is ahead by %v: shown off by %v", since, d, off)
			}
		}
	}
}

// TestSetBefore: a clock that was set in the life of the process that writes makes no difference
// either.
func TestSetBefore(t *testing.T) {
	began := time.Now()
	for _, d := range golden.Jumps {
		r := Now()
		r.Time = r.Time.Add(d) // began was before that
		w := send(t, written{r, r.Note(began)}, 0)
		if off := w.Clock.Moment(w.At).Sub(began); off != 0 {
			t.Errorf("%v: off by %v", d, off)
		}
	}
}

// TestPast: what has happened is never still to come, also where the writer does not say by
// what clock; and what was not said stays so.
func TestPast(t *testing.T) {
	now := time.Now()
	for _, r := range []Reading{{}, Now()} {
		if got := r.Past(now.Add(time.Hour)); got.After(time.Now()) || got.Before(now) {
			t.Errorf("%+v: %v", r, got)
		}
		for _, f := range []func(time.Time) time.Time{r.Note, r.Moment, r.Past} {
			if got := f(time.Time{}); !got.IsZero() {
				t.Errorf("%+v: %v", r, got)
			}
		}
		if got := r.Moment(r.Note(now.Add(time.Hour))); !got.Equal(now.Add(time.Hour)) && got.Sub(now) != time.Hour {
			t.Errorf("%+v: %v", r, got)
		}
	}
	if old := now.Round(0).Add(-time.Hour); !(Reading{}).Past(old).Equal(old) {
		t.Error("a time of a writer that does not say by what clock is another one")
	}
}

// TestShared: all processes have these clocks.
func TestShared(t *testing.T) {
	const env = "CLOCK_TEST_OTHER"
	if os.Getenv(env) != "" {
		_ = json.NewEncoder(os.Stdout).Encode([]int64{Now().Up, int64(SinceBoot())})
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestShared$")
	cmd.Env = append(os.Environ(), env+"=1")
	before := []int64{Now().Up, int64(SinceBoot())}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	after := []int64{Now().Up, int64(SinceBoot())}
	for i, there := range golden.Read[[]int64](t, out) {
		if there < before[i] || there > after[i] {
			t.Errorf("clock %d: %d here, %d there, %d here", i, before[i], there, after[i])
		}
	}
}
