package excerpt

import (
	"fmt"
	"strings"
	"testing"
)

func TestExcerpt(t *testing.T) {
	lines := func(from, to int) string {
		var b strings.Builder
		for i := from; i <= to; i++ {
			fmt.Fprintf(&b, "line %02d\n", i) // 8 bytes
		}
		return b.String()
	}
	for _, c := range []struct{ name, in, out string }{
		{"nothing", "", ""},
		{"little", "why\n", "why"},
		{"as much as is kept", lines(1, 8), strings.TrimSpace(lines(1, 8))},
		{"more", lines(1, 10), lines(1, 3) + "line 04\n… (24 bytes) …\n" + strings.TrimSpace(lines(8, 10))},
		{"lines are cut", "x" + lines(1, 10), "x" + lines(1, 3) + "… (32 bytes) …\n" + strings.TrimSpace(lines(8, 10))},
		{"no lines", strings.Repeat("a", 50) + strings.Repeat("b", 50), strings.Repeat("a", 32) + "\n… (36 bytes) …\n" + strings.Repeat("b", 32)},
		{"one line", "why\n" + strings.Repeat("a", 95) + "\n", "why\n… (64 bytes) …\n" + strings.Repeat("a", 31)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 32, 1000} { // of a write
				e := Excerpt{Size: 32}
				for rest := c.in; rest != ""; {
					n := min(size, len(rest))
					if w, err := e.Write([]byte(rest[:n])); w != n || err != nil {
						t.Fatal(w, err)
					}
					rest = rest[n:]
				}
				for range 2 { // asked again it is the same
					if got := e.String(); got != c.out {
						t.Errorf("by %d bytes: %q, not %q", size, got, c.out)
					}
				}
			}
		})
	}
}

// FuzzExcerpt: what is left out is as much as it says, and both ends are there.
func FuzzExcerpt(f *testing.F) {
	f.Add("a\nb", 1)
	f.Add(strings.Repeat("some line\n", 20), 16)
	f.Fuzz(func(t *testing.T, in string, size int) {
		size = 1 + (size&0xff+0x100)%0x100
		e := Excerpt{Size: size}
		if _, err := e.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		out := e.String()
		if len(in) <= 2*size {
			if out != strings.TrimSpace(in) {
				t.Errorf("%q became %q", in, out)
			}
			return
		}
		if len(out) > 2*size+40 {
			t.Errorf("%d bytes of %d", len(out), size)
		}
	})
}
