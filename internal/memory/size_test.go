package memory

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "1048576": 1 << 20, "1K": 1 << 10, "512M": 512 << 20, "512m": 512 << 20, "512MiB": 512 << 20,
		"2g": 2 << 30, "3T": 3 << 40, "1.5G": 3 << 29, "0.5K": 512, ".5k": 512, "9223372036854775807": math.MaxInt64,
		"007": 7, "1.0001K": 1024, "8388607T": 8388607 << 40,
	} {
		if n, err := ParseSize(s); n != want || err != nil {
			t.Errorf("%q: %d, %v, not %d", s, n, err, want)
		}
	}
	for s, why := range map[string]string{
		"": "is needed", "M": "is needed", "iB": "is needed", "1iB": "is needed", "-1": "is needed", "+1": "is needed",
		"1.5": "is needed", "1e3": "is needed", "1_000": "is needed", "0x10": "is needed", "inf": "is needed", "NaNK": "is needed",
		"1MM": "is needed", "1MB": "is needed", "1 M": "is needed", " 1M": "is needed", "M1": "is needed", "1P": "is needed",
		"1.2.3K": "is needed", ".K": "is needed", "１M": "is needed",
		"9223372036854775808": "more than", "8388608T": "more than", "99999999999999999999T": "more than", strings.Repeat("9", 400) + "K": "more than",
	} {
		if n, err := ParseSize(s); err == nil || n != 0 || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
}

func TestFormatSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 512 << 20: "512 MiB", 600<<20 + 1: "600 MiB",
		3 << 29: "1.5 GiB", 5 << 40: "5 TiB", math.MaxInt64: "8388608 TiB",
	} {
		if s := FormatSize(n); s != want {
			t.Errorf("%d: %q, not %q", n, s, want)
		}
	}
}

// FuzzSize: whatever is read is a number, and what is written of a whole one is read again
// as the same.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"512M", "1.5GiB", "0", "", "8388608T", "1e9K", "-1", "NaN", "1M "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if n < 0 || err != nil && n != 0 {
			t.Fatalf("%q: %d, %v", s, n, err)
		}
		if err != nil || n > 1<<40 || n != n>>20<<20 || n == 0 {
			return
		}
		if again, err := ParseSize(strings.ReplaceAll(FormatSize(n>>20<<20), " ", "")); n>>20 < 1024 && (again != n || err != nil) {
			t.Fatalf("%q: %d, then %d, %v", s, n, again, err)
		}
	})
}
