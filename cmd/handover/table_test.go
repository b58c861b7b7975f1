//go:build unix

package main

import (
	"strings"
	"testing"
)

func TestClip(t *testing.T) {
	t.Parallel()
	s := style{colour: true}
	green := s.paint(green, "käse")
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{
		{"abc", 0, "abc"},
		{"abc", 3, "abc"},
		{"abcd", 3, "ab…"},
		{"abc", 1, "…"},
		{"", 1, ""},
		{"äöüß", 4, "äöüß"},
		{"äöüß", 3, "äö…"},
		{"a" + green + "b", 6, "a" + green + "b"},
		{"a" + green + "b", 5, "a\x1b[32mkäs…\x1b[0m"},
		{green + "bcd", 6, "\x1b[32mkäse\x1b[0mb…\x1b[0m"},
		{"\x1b[", 2, "\x1b["},
	} {
		if got := clip(c.line, c.width); got != c.want {
			t.Errorf("%q, %d: %q, not %q", c.line, c.width, got, c.want)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("a\x1b[32mb\x1b[0mc", 2)
	f.Fuzz(func(t *testing.T, line string, width int) {
		width = min(max(width, 0), 200)
		got := clip(line, width)
		if width > 0 && columns(got) > width || width == 0 && got != line {
			t.Errorf("%q, %d: %q", line, width, got)
		}
	})
}

func TestPaint(t *testing.T) {
	t.Parallel()
	if got := (style{}).paint(red, "x"); got != "x" {
		t.Errorf("%q", got)
	}
	s := style{colour: true}
	if got := s.paint(red, "x") + s.paint(red, "") + s.paint("", "y"); got != "\x1b[31mx\x1b[0my" {
		t.Errorf("%q", got)
	}
	if got := firstLine("a\x1b[31m\tb\nc"); got != "a?[31m\tb" {
		t.Errorf("%q", got)
	}
}

// TestTable: columns are as wide as they have to be, and those that can be spared go where
// there is no room, the least important first.
func TestTable(t *testing.T) {
	t.Parallel()
	tab := table{columns: []column{{name: "NAME"}, {name: "N", right: true}, {name: "RARE", drop: 2}, {name: "WHY", drop: 1}}}
	tab.rows = []row{
		{cells: []cell{plain("web/1"), plain("10"), plain("x"), plain("because")}, comment: []string{"and so on, and so on"}},
		{cells: []cell{{"w", green}, plain("9"), plain(""), plain("")}},
	}
	for width, want := range map[int]string{
		0:  "  NAME    N  RARE  WHY\n  web/1  10  x     because\n      and so on, and so on\n  w       9",
		26: "  NAME    N  RARE  WHY\n  web/1  10  x     because\n      and so on, and so on\n  w       9",
		25: "  NAME    N  WHY\n  web/1  10  because\n      and so on, and so\n      on\n  w       9",
		19: "  NAME    N\n  web/1  10\n      and so on,\n      and so on\n  w       9",
		10: "  NAME   …\n  web/1  …\n      and\n      so\n      on,…\n  w      …",
		5:  "  NA…\n  we…\n    …\n  w …",
	} {
		if got := strings.Join(tab.lines(style{width: width}), "\n"); got != want {
			t.Errorf("%d columns:\n%s\nnot\n%s", width, got, want)
		}
	}
	painted := strings.Join(tab.lines(style{colour: true}), "\n")
	if !strings.Contains(painted, "  \x1b[2mNAME\x1b[0m    \x1b[2mN\x1b[0m") || !strings.Contains(painted, "\n  \x1b[32mw\x1b[0m       9") {
		t.Errorf("%q", painted)
	}
}

// TestFrame: what does not fit into the height is counted.
func TestFrame(t *testing.T) {
	t.Parallel()
	lines := []string{"one", "two", "three"}
	for height, want := range map[int]string{
		0: "one|two|three", 3: "one|two|three", 2: "one|… 2 more lines", 1: "… 3 more lines",
	} {
		want = "\x1b[H" + strings.ReplaceAll(want, "|", "\x1b[K\r\n") + "\x1b[K\x1b[J"
		if got := frame(lines, height); got != want {
			t.Errorf("%d: %q, not %q", height, got, want)
		}
	}
	if lines[1] != "two" {
		t.Error("the lines have changed")
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0", 99: "99", 999: "999", 1000: "1.0K", 1 << 20: "1.0M", 13 << 20: "13.0M", 100 << 20: "100M", 999 << 20: "999M", 1 << 30: "1.0G",
		1000 << 20: "1.0G", 150 << 30: "150G", 3 << 40: "3.0T",
	} {
		if got := short(n); got != want || len(got) > 5 {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
}
