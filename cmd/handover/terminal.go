//go:build unix

package main

import (
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/handover-go/handover/internal/console"
)

// style is how something is printed: for a person at a terminal, or for whoever reads a
// pipe or a file.
type style struct {
	colour bool
	width  int // columns; 0: as many as one likes
}

// styleOf looks where something goes to.
func styleOf(f *os.File) style {
	if !console.IsTerminal(f) {
		return style{}
	}
	s := style{colour: console.Colours(os.Getenv)}
	s.width, _, _ = term.GetSize(int(f.Fd()))
	return s
}

// Colours, as ECMA-48 has them.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// paint gives a text a colour, where there are any.
func (s style) paint(colour, text string) string {
	if !s.colour || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// maxWrapped is over how many lines a text goes.
const maxWrapped = 3

// wrap is a text in as few lines as it takes, each with an indent. What would take more
// than maxWrapped is cut off.
func (s style) wrap(indent, text string) (lines []string) {
	if s.width == 0 {
		return []string{indent + text}
	}
	room := max(1, s.width-len(indent))
	for len(lines) < maxWrapped-1 && columns(text) > room {
		at := strings.LastIndexByte(text[:offset(text, room+1)], ' ')
		if at <= 0 {
			break
		}
		lines = append(lines, indent+text[:at])
		text = text[at+1:]
	}
	return append(lines, s.line(indent+text))
}

// offset is where a text's column begins.
func offset(text string, column int) int {
	for i := range text {
		if column == 0 {
			return i
		}
		column--
	}
	return len(text)
}

// line is a line of text that fits.
func (s style) line(text string) string { return clip(text, s.width) }

// clip cuts a line that is longer than so many columns; 0 is no limit. What paint has
// written takes none.
func clip(line string, width int) string {
	if width == 0 || columns(line) <= width {
		return line
	}
	var b strings.Builder
	for left := width - 1; left > 0; {
		if esc := escape(line); esc > 0 {
			b.WriteString(line[:esc])
			line = line[esc:]
			continue
		}
		_, n := utf8.DecodeRuneInString(line)
		b.WriteString(line[:n])
		line = line[n:]
		left--
	}
	b.WriteString("…")
	if strings.Contains(b.String(), "\x1b[") {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// columns counts those of a line.
func columns(line string) (n int) {
	for line != "" {
		if esc := escape(line); esc > 0 {
			line = line[esc:]
			continue
		}
		_, size := utf8.DecodeRuneInString(line)
		line = line[size:]
		n++
	}
	return n
}

// escape is the length of the colour that a line begins with.
func escape(line string) int {
	if !strings.HasPrefix(line, "\x1b[") {
		return 0
	}
	return strings.IndexByte(line, 'm') + 1
}

// firstLine is what fits in a table. It is somebody else's text: nothing of it is to
// steer the terminal.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return harmless(line)
}

// harmless is a line in which nothing steers the terminal.
func harmless(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return '?'
		}
		return r
	}, line)
}
