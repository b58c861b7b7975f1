package console

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"
	"unicode"
)

// TestHandler: what package slog asks of a handler.
func TestHandler(t *testing.T) {
	var buf bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler { buf.Reset(); return NewHandler(&buf, false) }, func(t *testing.T) map[string]any {
		return parse(t, buf.String())
	})
}

// parse reads a line back, of words without spaces.
func parse(t *testing.T, line string) map[string]any {
	t.Helper()
	head, attrs, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
	for _, level := range []string{"INFO", "WARN"} { // are filled up
		if before, after, ok := strings.Cut(line, level+"  "); ok {
			head, attrs, _ = strings.Cut(strings.TrimSuffix(after, "\n"), "  ")
			head = before + level + " " + head
		}
	}
	all := map[string]any{}
	words := strings.Fields(head)
	if strings.Contains(words[0], ":") {
		all[slog.TimeKey], words = words[0], words[1:]
	}
	all[slog.LevelKey], all[slog.MessageKey] = words[0], strings.Join(words[1:], " ")
	for _, attr := range strings.Fields(attrs) {
		key, value, _ := strings.Cut(attr, "=")
		m := all
		path := strings.Split(key, ".")
		for _, group := range path[:len(path)-1] {
			if m[group] == nil {
				m[group] = map[string]any{}
			}
			m = m[group].(map[string]any)
		}
		m[path[len(path)-1]] = value
	}
	return all
}

// TestLook: what a person sees.
func TestLook(t *testing.T) {
	at := time.Date(2024, 5, 6, 7, 8, 9, 123_456_789, time.Local)
	for want, args := range map[string][]any{
		"07:08:09.123 WARN  m\n": nil,
		"07:08:09.123 WARN  m  worker=web/1 id=7 wait=1.5s ok=true\n":    {"worker", "web/1", "id", 7, "wait", 1500 * time.Millisecond, "ok", true},
		"07:08:09.123 WARN  m  a=\"two words\" b=\"\" c=\"x=y\" d=né\n":  {"a", "two words", "b", "", "c", "x=y", "d", "né"},
		"07:08:09.123 WARN  m  error=\"no luck\" at=2024-05-06T07:08:09": {"error", errors.New("no luck"), "at", at},
		"07:08:09.123 WARN  m  pids=\"[1 2]\" level=INFO\n":              {"pids", []int{1, 2}, "level", slog.LevelInfo},
		"07:08:09.123 WARN  m  reason=once id=1\n":                       {slog.Group("", "reason", "once"), "id", 1},
		// A crash.
		"07:08:09.123 WARN  m  id=1 pid=2\n  reason:\n    | panic: no luck\n    | \n    | goroutine 7 [running]:\n    | main.main()\n    | \t/src/main.go:7 +0x1d\n": {"id", 1, "reason", "panic: no luck\n\ngoroutine 7 [running]:\nmain.main()\n\t/src/main.go:7 +0x1d\n", "pid", 2},
		"07:08:09.123 WARN  m  one=\"a line\\n\"\n": {"one", "a line\n"},
		// Foreign words.
		"07:08:09.123 WARN  m  said=\"\\x1b[2J\\a\\x00\" bidi=\"a\\u202eb\" bad=\"\\xff\"\n":          {"said", "\x1b[2J\a\x00", "bidi", "a\u202eb", "bad", "\xff"},
		"07:08:09.123 WARN  m\n  said:\n    | \\x1b]0;title\\a\n    | \\r\\u200b\\xff\ufffd\\u0085\n": {"said", "\x1b]0;title\a\n\r\u200b\xff\ufffd\u0085"},
		"07:08:09.123 WARN  m  a\\x1b.b\\n=1\n":                                                       {slog.Group("a\x1b", "b\n", 1)},
	} {
		var buf bytes.Buffer
		r := slog.NewRecord(at, slog.LevelWarn, "m", 0)
		r.Add(args...)
		if err := NewHandler(&buf, false).Handle(t.Context(), r); err != nil || !strings.HasPrefix(buf.String(), want) {
			t.Errorf("%v\n got %q\nwant %q", err, buf.String(), want)
		}
	}
}

// TestColours: that of the level, and nothing else.
func TestColours(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: "\x1b[2mDEBUG\x1b[0m", slog.LevelInfo: "\x1b[32mINFO \x1b[0m",
		slog.LevelWarn: "\x1b[33mWARN \x1b[0m", slog.LevelError: "\x1b[1;31mERROR\x1b[0m",
	} {
		var buf bytes.Buffer
		r := slog.NewRecord(time.Time{}, level, "a \x1b[31mmessage", 0)
		if err := NewHandler(&buf, true).Handle(t.Context(), r); err != nil || buf.String() != want+" a \\x1b[31mmessage\n" {
			t.Errorf("%v, %q", err, buf.String())
		}
	}
	for env, want := range map[string]bool{
		"TERM=xterm": true, "": false, "TERM=dumb": false, "TERM=xterm NO_COLOR=1": false, "TERM=xterm NO_COLOR=": true,
	} {
		vars := map[string]string{}
		for _, v := range strings.Fields(env) {
			name, value, _ := strings.Cut(v, "=")
			vars[name] = value
		}
		if got := Colours(func(name string) string { return vars[name] }); got != want {
			t.Errorf("%q: %v", env, got)
		}
	}
}

// FuzzHandler: whatever is said, nothing but what is printable comes out, and a line begins
// as lines of ours do.
func FuzzHandler(f *testing.F) {
	f.Add("message", "key", "value")
	f.Add("\x1b[31m", "\n", "a\n\x9b\u202e\xff\r\x7f")
	f.Fuzz(func(t *testing.T, message, key, value string) {
		var buf bytes.Buffer
		log := slog.New(NewHandler(&buf, false)).With(key, value)
		log.Info(message, key, value)
		for i, line := range strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n") {
			for _, r := range line {
				if !unicode.IsPrint(r) && r != '\t' {
					t.Fatalf("%q in %q", r, line)
				}
			}
			if i > 0 && !strings.HasPrefix(line, "  ") {
				t.Errorf("%q", line)
			}
		}
	})
}

// TestAtOnce: a record is one Write, and loggers that have come of one another do not
// disturb each other.
func TestAtOnce(t *testing.T) {
	var w writes
	log := slog.New(NewHandler(&w, false)).With("all", 1)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			of := log.With("of", i)
			for range 100 {
				of.Info("m", "text", fmt.Sprintf("a\n%d", i))
			}
		})
	}
	wg.Wait()
	for _, s := range w.list {
		var i, j int
		if _, err := fmt.Sscanf(s[13:], "INFO m all=1 of=%d\n  text:\n    | a\n    | %d\n", &i, &j); err != nil || i != j {
			t.Errorf("%v: %q", err, s)
		}
	}
	if len(w.list) != 800 {
		t.Errorf("%d writes", len(w.list))
	}
}

type writes struct{ list []string }

func (w *writes) Write(b []byte) (int, error) {
	w.list = append(w.list, string(b))
	return len(b), nil
}

// TestIsTerminal: /dev/null is a character device, and no terminal.
func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, f := range []*os.File{null, r, w, closed} {
		if IsTerminal(f) {
			t.Errorf("%s is a terminal", f.Name())
		}
	}
}
