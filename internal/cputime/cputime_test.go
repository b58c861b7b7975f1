package cputime

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

const line = "4711 (a (b) c) S 1 4711 4711 0 -1 4194560 100 0 0 0 10 20 3 400 20 0 7 0 5 100 200"

func TestParse(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]time.Duration{
		line: 4330 * time.Millisecond, strings.Replace(line, " 10 20 3 400 ", " 0 0 0 0 ", 1): 0,
		"": -1, "4711": -1, "4711 (x) S 1": -1, strings.ReplaceAll(line, ")", ""): -1,
		strings.Replace(line, " 20 3 ", " x 3 ", 1): -1, strings.Replace(line, " 20 3 ", " -2 3 ", 1): -1,
		strings.Replace(line, " 20 3 ", " 9999999999999999999999 3 ", 1): -1, strings.Replace(line, " 20 3 ", " 999999999999999999 3 ", 1): -1,
	} {
		if got, err := parse([]byte(stat)); got != max(want, 0) || (err != nil) != (want < 0) {
			t.Errorf("%q: %v, %v", stat, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(line))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parse(b); d < 0 || err != nil && d != 0 {
			t.Errorf("%q: %v, %v", b, d, err)
		}
	})
}

// TestOf: what this process has used grows, and of nobody nothing is known.
func TestOf(t *testing.T) {
	t.Parallel()
	first, err := Of(os.Getpid())
	if errors.Is(err, ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for now := first; now <= first; {
		if now, err = Of(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Of(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
