//go:build unix

package main

import "strings"

// table is rows of cells in columns.
type table struct {
	columns []column
	rows    []row
}

type column struct {
	name  string
	right bool
	// drop says which columns are left out where there is no room for all: those with the
	// highest number first, and never those with 0.
	drop int
	// text is somebody's words, of which some may be cut off where there is no room.
	text bool
}

// row is a cell for each column, and lines below.
type row struct {
	cells   []cell
	comment []string
}

type cell struct{ text, colour string }

func plain(text string) cell { return cell{text: text} }

// lines are the table's, in a style.
func (t table) lines(s style) (lines []string) {
	const indent, gap = "  ", "  "
	widths, shown := t.fit(s.width-len(indent), len(gap))
	format := func(cells []cell) string {
		var b strings.Builder
		b.WriteString(indent)
		for i, c := range cells {
			if !shown[i] {
				continue
			}
			pad := strings.Repeat(" ", max(0, widths[i]-columns(c.text)))
			if t.columns[i].right {
				b.WriteString(pad + s.paint(c.colour, c.text))
			} else {
				b.WriteString(s.paint(c.colour, c.text) + pad)
			}
			b.WriteString(gap)
		}
		return s.line(strings.TrimRight(b.String(), " "))
	}
	head := make([]cell, len(t.columns))
	for i, c := range t.columns {
		head[i] = cell{c.name, dim}
	}
	lines = append(lines, format(head))
	for _, r := range t.rows {
		lines = append(lines, format(r.cells))
		for _, c := range r.comment {
			lines = append(lines, s.wrap("      ", c)...)
		}
	}
	return lines
}

// leastText is how much of a text is to be seen before other columns go.
const leastText = 16

// fit is how wide the columns are, and which of them are shown; width <= 0 is no limit.
func (t table) fit(width, gap int) (widths []int, shown []bool) {
	widths, shown = make([]int, len(t.columns)), make([]bool, len(t.columns))
	sum := -gap
	for i, c := range t.columns {
		shown[i] = true
		widths[i] = columns(c.name)
		for _, r := range t.rows {
			widths[i] = max(widths[i], columns(r.cells[i].text))
		}
		if sum += widths[i] + gap; c.text {
			sum -= max(0, widths[i]-leastText)
		}
	}
	for width > 0 && sum > width {
		out := -1
		for i, c := range t.columns {
			if shown[i] && c.drop > 0 && (out < 0 || c.drop > t.columns[out].drop) {
				out = i
			}
		}
		if out < 0 {
			break
		}
		shown[out] = false
		sum -= widths[out] + gap
	}
	return widths, shown
}
