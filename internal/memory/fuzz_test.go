package memory

import "testing"

// FuzzProcess: whatever /proc says, it is a size or an error.
func FuzzProcess(f *testing.F) {
	for _, seed := range []string{"1234 567 89 1 0 99 0\n", "Rss: 3 kB\nPss:      1234 kB\n", "Pss:", "Pss: -1 kB\n", "1 -1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = rss(b)
		_, _ = pss(b)
	})
}
