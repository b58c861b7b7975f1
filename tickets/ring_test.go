package tickets

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return epoch.Add(d) }

func numbered(n int) (s [32]byte) {
	binary.BigEndian.PutUint64(s[:], uint64(n))
	return s
}

// TestDue: a key is old when it has encrypted for Every, or comes from a future that is as
// far away, and never before.
func TestDue(t *testing.T) {
	const every = time.Hour
	for _, c := range []struct {
		age  time.Duration
		due  bool
		left time.Duration
	}{
		{0, false, every}, {1, false, every - 1}, {every - 1, false, 1}, {every, true, 0}, {every + 1, true, 0},
		{1000 * every, true, 0}, {-1, false, every + 1}, {1 - every, false, 2*every - 1}, {-every, true, 0}, {-1000 * every, true, 0},
	} {
		r := ring{{from: epoch.UnixNano(), secret: numbered(1)}}
		if due, left := r.due(at(c.age), every), r.until(at(c.age), every); due != c.due || left != c.left {
			t.Errorf("at the age of %v: due %v, in %v", c.age, due, left)
		}
	}
	if !(ring{}).due(epoch, every) {
		t.Error("no key, and none is due")
	}
	for _, from := range []int64{math.MinInt64, math.MaxInt64} { // what a file may say
		if r := (ring{{from: from}}); !r.due(epoch, every) {
			t.Errorf("a key of %d is not due", from)
		}
	}
}

// TestNext goes through all ways in which a few keys can follow one another, the clock being
// set back among them.
func TestNext(t *testing.T) {
	const keep = 10
	steps := []time.Duration{-1000, -keep, -1, 0, 1, keep - 1, keep, keep + 1}
	count := 0
	var follow func(r ring, now time.Duration, depth int)
	follow = func(r ring, now time.Duration, depth int) {
		if depth == 0 {
			return
		}
		for _, step := range steps {
			now := now + step
			next := r.next(at(now), keep, numbered(depth))
			count++
			checkNext(t, r, next, at(now), keep, numbered(depth))
			if t.Failed() {
				return
			}
			follow(next, now, depth-1)
		}
	}
	follow(nil, 0, 5)
	t.Logf("%d rings", count)
}

// checkNext says what next is to be, in other words.
func checkNext(t *testing.T, r, next ring, now time.Time, keep time.Duration, secret [32]byte) {
	t.Helper()
	if len(next) == 0 || next[0] != (key{now.UnixNano(), secret}) {
		t.Errorf("the new key does not encrypt: %v", next)
		return
	}
	// Who encrypted at any time in the last keep may have left tickets.
	want := 1
	for i := range r {
		stopped := now.UnixNano()
		if i > 0 {
			stopped = min(r[i-1].from, stopped)
		}
		if i > 0 && stopped <= now.UnixNano()-int64(keep) { // and not the difference, which may be too much
			break
		}
		want++
	}
	if want = min(want, maxKeys); len(next) != want {
		t.Errorf("at %d after %v: %d keys, and not %d: %v", now.UnixNano(), r, len(next), want, next)
	}
	for i, k := range next[1:] {
		if k.secret != r[i].secret || k.from > r[i].from || k.from > next[i].from {
			t.Errorf("after %v: %v", r, next)
		}
	}
	if again, err := parse(next.format()); err != nil || !slices.Equal(again, next) {
		t.Errorf("%v is written, and read as %v, %v", next, again, err)
	}
}

// TestEnough: with every Config that is valid, no key is dropped too early for want of room.
func TestEnough(t *testing.T) {
	for every := time.Duration(1); every < 8; every++ {
		for keep := time.Duration(1); keep < 60; keep++ {
			if (Config{Every: every, Keep: keep}).Validate() != nil {
				continue
			}
			var r ring
			for n := range 3 * maxKeys {
				r = r.next(at(time.Duration(n)*every), keep, numbered(n+1))
			}
			if want := 1 + int((keep+every-1)/every); len(r) != want {
				t.Errorf("every %d, kept %d: %d keys, and not %d", every, keep, len(r), want)
			}
		}
	}
}

// TestParse: no byte of a ring can be another one.
func TestParse(t *testing.T) {
	var r ring
	for i := range 3 {
		r = r.next(at(time.Duration(i)), time.Hour, numbered(i+1))
	}
	good := r.format()
	for i := range good {
		for _, x := range []byte{1, 0x80, 0xff} {
			b := good
			b[i] ^= x
			want := errFormat
			if i == 7 {
				want = errVersion
			}
			if r, err := parse(b); !errors.Is(err, want) || r != nil {
				t.Errorf("byte %d: %v, %v", i, r, err)
			}
		}
	}
	// Half of it, with what was there before.
	before := r[1:].format()
	for n := range good {
		b := good
		copy(b[n:], before[n:])
		if b == good || b == before {
			continue
		}
		if r, err := parse(b); err == nil {
			t.Errorf("torn at %d: %v", n, r)
		}
	}
	// With a checksum that fits.
	for name, spoil := range map[string]func(b *[size]byte){
		"no keys":       func(b *[size]byte) { b[8] = 0 },
		"too many":      func(b *[size]byte) { b[8] = maxKeys + 1 },
		"one too few":   func(b *[size]byte) { b[8] = 2 },
		"a zero key":    func(b *[size]byte) { b[8] = 4 },
		"out of order":  func(b *[size]byte) { b[16] = 0 },
		"in the head":   func(b *[size]byte) { b[9] = 1 },
		"after the end": func(b *[size]byte) { b[body-1] = 1 },
	} {
		b := good
		spoil(&b)
		sum := sha256.Sum256(b[:body])
		copy(b[body:], sum[:])
		if r, err := parse(b); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

// FuzzParse: whatever is in the file, what parse returns is a ring, and what it was made of.
func FuzzParse(f *testing.F) {
	r := fresh()
	for range maxKeys + 1 {
		b := r.format()
		f.Add(b[:body], true)
		r = r.next(time.Now(), time.Hour, secret())
	}
	old := ring{{from: epoch.UnixNano(), secret: numbered(2)}, {from: math.MinInt64, secret: numbered(3)}, {from: math.MinInt64, secret: numbered(4)}}.format()
	f.Add(old[:body], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, fits bool) {
		var b [size]byte
		copy(b[:], data)
		if fits {
			sum := sha256.Sum256(b[:body])
			copy(b[body:], sum[:])
		}
		r, err := parse(b)
		if err != nil {
			if !errors.Is(err, errFormat) && !errors.Is(err, errVersion) {
				t.Fatal(err)
			}
			return
		}
		if len(r) < 1 || len(r) > maxKeys || r.format() != b {
			t.Fatalf("%x is read as %v", b, r)
		}
		r.due(epoch, time.Hour)
		checkNext(t, r, r.next(epoch, time.Hour, numbered(1)), epoch, time.Hour, numbered(1))
	})
}
