// Package console shows log records to a person at a terminal.
//
//	15:04:05.000 ERROR worker failed, it is being replaced  worker=web/1 id=1 cause=panic
//	  reason:
//	    | panic: no luck
//	    | goroutine 7 [running]:
//
// Nothing of what is shown can steer the terminal: of whatever somebody has said, only what
// is printable comes through as it is.
package console

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether a file is one (tcgetwinsize(3)). Its flags stay as they are.
func IsTerminal(f *os.File) bool {
	rc, err := f.SyscallConn()
	if err != nil {
		return false
	}
	cerr := rc.Control(func(fd uintptr) { _, err = unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ) })
	return err == nil && cerr == nil
}

// Colours reports whether a terminal with this environment is to show them
// (https://no-color.org).
func Colours(getenv func(string) string) bool {
	term := getenv("TERM")
	return getenv("NO_COLOR") == "" && term != "" && term != "dumb"
}

// Handler writes one record after the other, each with one call of Write. It may be used
// from any goroutine.
type Handler struct {
	w      io.Writer
	mu     *sync.Mutex // of w
	colour bool
	level  slog.Leveler

	groups string // of the attributes to come, each with a dot behind it
	attrs  fields // that all records have
}

// NewHandler writes records of slog.LevelInfo and up to w.
func NewHandler(w io.Writer, colour bool) *Handler {
	return &Handler{w: w, mu: &sync.Mutex{}, colour: colour, level: slog.LevelInfo}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	for _, a := range attrs {
		next.attrs.add(h.groups, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.groups += name + "."
	}
	return &next
}

// Handle implements slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	f := h.attrs
	r.Attrs(func(a slog.Attr) bool { f.add(h.groups, a); return true })
	var b strings.Builder
	if !r.Time.IsZero() {
		b.WriteString(r.Time.Format("15:04:05.000 "))
	}
	level := fmt.Sprintf("%-5s", r.Level)
	if h.colour {
		level = colourOf(r.Level) + level + "\x1b[0m" // ECMA-48, SGR
	}
	b.WriteString(level + " " + printable(r.Message))
	if f.line != "" {
		b.WriteString(" " + f.line)
	}
	b.WriteString("\n" + f.below)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

func colourOf(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "\x1b[1;31m" // bold red
	case l >= slog.LevelWarn:
		return "\x1b[33m" // yellow
	case l >= slog.LevelInfo:
		return "\x1b[32m" // green
	}
	return "\x1b[2m" // faint
}

// fields are attributes as they are shown: on the record's line, and below it. They are
// strings, so that a copy can grow without the other one.
type fields struct{ line, below string }

func (f *fields) add(groups string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			groups += a.Key + "."
		}
		for _, a := range v.Group() {
			f.add(groups, a)
		}
	default:
		f.put(printable(groups+a.Key), text(v))
	}
}

func (f *fields) put(key, value string) {
	lines := strings.Split(strings.TrimRight(value, "\n"), "\n")
	if len(lines) == 1 {
		f.line += " " + key + "=" + quoted(value)
		return
	}
	f.below += "  " + key + ":\n"
	for _, line := range lines {
		f.below += "    | " + printable(line) + "\n"
	}
}

// text is a value as slog.TextHandler has it.
func text(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format("2006-01-02T15:04:05.000Z07:00")
	case slog.KindAny:
		if m, ok := v.Any().(encoding.TextMarshaler); ok {
			if b, err := m.MarshalText(); err == nil {
				return string(b)
			}
		}
		return fmt.Sprintf("%+v", v.Any())
	}
	return v.String()
}

// quoted is one word.
func quoted(s string) string {
	odd := func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }
	if s == "" || strings.ContainsFunc(s, odd) || strings.ToValidUTF8(s, "") != s {
		return strconv.Quote(s)
	}
	return s
}

// printable escapes what is not, but for the tabs of a crash report.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s { // an invalid byte is one rune
		switch {
		case unicode.IsPrint(r) && (r != unicode.ReplacementChar || strings.HasPrefix(s[i:], string(r))), r == '\t':
			b.WriteRune(r)
		case r == unicode.ReplacementChar:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
