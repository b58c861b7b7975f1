//go:build unix

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/handover-go/handover/draintest"
)

// liveLine is one line that says how it goes: again and again in its place on a terminal,
// and once a round elsewhere.
type liveLine struct {
	w     io.Writer
	tty   bool
	round int
	shown bool
}

func (l *liveLine) show(p draintest.Progress) {
	text := fmt.Sprintf("%5.1fs  round %d of %d  %.0f/s  %d answered  %d failed  %d closed idle",
		p.Elapsed.Seconds(), p.Round, p.Rounds, p.Rate, p.Answered, p.Failed, p.ClosedIdle)
	if p.Processes > 0 {
		text += fmt.Sprintf("  %d processes", p.Processes)
	}
	if p.Worker != "" {
		text += "  " + p.Worker
	}
	switch {
	case l.tty:
		fmt.Fprintf(l.w, "\r\x1b[K%s", text) // ECMA-48, EL
		l.shown = true
	case p.Round != l.round:
		l.round = p.Round
		fmt.Fprintln(l.w, text)
	}
}

func (l *liveLine) end() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

// lastLines keeps the end of what a program prints.
type lastLines struct {
	mu sync.Mutex
	b  []byte
}

const keptOutput = 8 << 10

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if n := len(l.b) - keptOutput; n > 0 {
		l.b = append(l.b[:0], l.b[n:]...)
	}
	return len(p), nil
}

func (l *lastLines) show(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimRight(string(l.b), "\n"), "\n")
	if len(l.b) == 0 {
		return
	}
	fmt.Fprintln(w, "the program's last output:")
	for _, line := range lines[max(0, len(lines)-20):] {
		fmt.Fprintln(w, "  "+line)
	}
}
