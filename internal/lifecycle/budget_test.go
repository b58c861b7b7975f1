package lifecycle

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// takeAll is how many can be taken at one moment.
func takeAll(b *Budget, now time.Time) (n int) {
	for b.Take(now) {
		n++
	}
	return n
}

func TestBudgetExamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		budget  Budget
		wait    time.Duration // between two moments
		n, then int           // that can be taken, and after the wait
	}{
		{"default", Budget{}, time.Second, 60, 1},
		{"a little too early", Budget{}, time.Second - 1, 60, 0},
		{"all is refilled in a minute", Budget{}, time.Minute, 60, 60},
		{"no more than all", Budget{}, time.Hour, 60, 60},
		{"nonsense is the default", Budget{Burst: -1, Per: -1}, time.Second, 60, 1},
		{"one", Budget{Burst: 1, Per: 10 * time.Second}, 9 * time.Second, 1, 0},
		{"one again", Budget{Burst: 1, Per: 10 * time.Second}, 10 * time.Second, 1, 1},
		{"no whole nanosecond", Budget{Burst: 7, Per: 10}, 10, 7, 5},
		{"very many", Budget{Burst: math.MaxInt, Per: 1}, 3, maxBurst, 3},
		{"very slowly", Budget{Burst: 2, Per: math.MaxInt64}, 10 * time.Hour, 2, 0},
	} {
		b := c.budget
		if got := takeAll(&b, noon); got != c.n {
			t.Errorf("%s: %d at once, want %d", c.name, got, c.n)
		}
		if got := takeAll(&b, noon.Add(c.wait)); got != c.then {
			t.Errorf("%s: %d after %v, want %d", c.name, got, c.wait, c.then)
		}
	}
}

func TestBudgetNext(t *testing.T) {
	t.Parallel()
	var b Budget
	if next := b.Next(noon); !next.Equal(noon) {
		t.Errorf("a full one: %v", next)
	}
	takeAll(&b, noon)
	if next := b.Next(noon.Add(300 * time.Millisecond)); !next.Equal(noon.Add(time.Second)) {
		t.Errorf("an empty one: %v", next)
	}
	if next := b.Next(noon.Add(time.Hour)); !next.Equal(noon.Add(time.Hour)) {
		t.Errorf("one that is full again: %v", next)
	}
}

func TestBudgetSurvivesClocks(t *testing.T) {
	t.Parallel()
	for name, back := range map[string][2]time.Time{
		"by a second":     {noon, noon.Add(-time.Second)},
		"by a year":       {noon, noon.AddDate(-1, 0, 0)},
		"by 400 years":    {noon, noon.AddDate(-400, 0, 0)}, // beyond what a Duration holds
		"to nothing":      {noon, {}},
		"from far beyond": {time.Unix(1<<50, 0), noon},
	} {
		var b Budget
		takeAll(&b, back[0])
		now := back[1]
		next := b.Next(now)
		if wait := next.Sub(now); wait <= 0 || wait > time.Second {
			t.Errorf("%s: waits for %v", name, wait)
		}
		if b.Take(next.Add(-1)) || !b.Take(next) {
			t.Errorf("%s: Next is not when", name)
		}
		if got := takeAll(&b, now.Add(time.Hour)); got != 60 {
			t.Errorf("%s: %d after an hour", name, got)
		}
	}
}

func TestBudgetTravels(t *testing.T) {
	t.Parallel()
	for _, b := range []Budget{{}, {Burst: 3, Per: time.Second}} {
		for range 3 {
			text, err := json.Marshal(b)
			var heir Budget
			if err == nil {
				err = json.Unmarshal(text, &heir)
			}
			if err != nil || heir.Burst != b.Burst || heir.Per != b.Per || !heir.Full.Equal(b.Full) {
				t.Fatalf("%s, %v: got %+v, want %+v", text, err, heir, b)
			}
			b.Take(noon)
		}
	}
	// Another configuration takes up what it can hold of the debt.
	big, small := Budget{Burst: 1000, Per: time.Hour}, Budget{Burst: 2, Per: 2 * time.Second}
	takeAll(&big, noon)
	small.Full = big.Full
	if got := takeAll(&small, noon); got != 0 {
		t.Errorf("%d at once", got)
	}
	if got := takeAll(&small, noon.Add(time.Second)); got != 1 {
		t.Errorf("%d after a second", got)
	}
}

// bucket is Budget said in another way: how much is in it, and when that was. What
// is beyond all of it is only capped when something is taken.
type bucket struct {
	step, all, level time.Duration
	at               time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.level = max(0, b.level+now.Sub(b.at))
	b.at = now
	if in := min(b.level, b.all); in >= b.step {
		b.level = in - b.step
		return true
	}
	return false
}

// TestBudgetOfAnyHistory compares it with the bucket, also when the clock is set
// back; and when it is not, looks at every window.
func TestBudgetOfAnyHistory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		b := Budget{Burst: 1 + rnd.IntN(8), Per: 1 + time.Duration(rnd.Int64N(1<<rnd.IntN(40)))}
		step := (b.Per + time.Duration(b.Burst) - 1) / time.Duration(b.Burst)
		all := step * time.Duration(b.Burst)
		dumb := bucket{step: step, all: all, level: 1 << 60, at: noon} // full since ever
		jumps := seed%2 == 0
		now := noon
		var taken []time.Time
		for range 300 {
			now = now.Add(time.Duration(rnd.Int64N(int64(2 * step))))
			if rnd.IntN(20) == 0 {
				now = now.Add(time.Duration(rnd.Int64N(int64(3 * all))))
			}
			if jumps && rnd.IntN(20) == 0 {
				now = now.Add(-time.Duration(rnd.Int64N(int64(3 * all))))
			}
			for range 1 + rnd.IntN(3) {
				next := b.Next(now)
				got := b.Take(now)
				if want := dumb.take(now); got != want {
					t.Fatalf("%+v, seed %d: Take %v, want %v", b, seed, got, want)
				}
				if got != next.Equal(now) {
					t.Fatalf("%+v, seed %d: Take %v, Next was in %v", b, seed, got, next.Sub(now))
				}
				if early, late := b, b; !got && (early.Take(next.Add(-1)) || !late.Take(next)) {
					t.Fatalf("%+v, seed %d: Next is not when", b, seed)
				}
				if got {
					taken = append(taken, now)
				}
			}
		}
		for i := 0; !jumps && i < len(taken); i++ {
			for j := i; j < len(taken); j++ {
				most := float64(b.Burst) + float64(taken[j].Sub(taken[i]))*float64(b.Burst)/float64(b.Per)
				if float64(j-i+1) > most+1e-9 {
					t.Fatalf("%+v, seed %d: %d in %v", b, seed, j-i+1, taken[j].Sub(taken[i]))
				}
			}
		}
	}
}

// TestBudgetIsSafeWithWildClocks: nothing overflows into a budget without bounds.
func TestBudgetIsSafeWithWildClocks(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(6, 7))
	for range 2000 {
		b := Budget{
			Burst: rnd.IntN(20), Per: time.Duration(rnd.Int64()),
			Full: time.Unix(rnd.Int64N(1<<60)-1<<59, rnd.Int64N(1e9)),
		}
		now := time.Unix(rnd.Int64N(1<<60)-1<<59, rnd.Int64N(1e9))
		if got := takeAll(&b, now); got > 60 {
			t.Fatalf("%+v at %v: %d at once", b, now, got)
		}
		if next := b.Next(now); !next.After(now) || next.Sub(now) > maxPer {
			t.Fatalf("%+v at %v: next at %v", b, now, next)
		}
	}
}
