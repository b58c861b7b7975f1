package drain

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/moving"
)

// call is one that a held gets.
type call struct {
	what string // "idle", "deadline", "forget", "asked", "got"
	room int    // asked
	b    string // got
}

func (c call) to(h *held) {
	switch c.what {
	case "idle":
		h.becameIdle()
	case "deadline":
		h.deadlineSet()
	case "forget":
		h.forget()
	case "asked":
		h.asked(c.room)
	case "got":
		h.got([]byte(c.b))
	}
}

// knows says what a held must know after some calls, by looking back at all of them.
func knows(fresh bool, calls []call) (known bool, bytes string) {
	// Where the knowledge begins, and with how many bytes of what was read before.
	begin, n := -1, 0
	if fresh {
		begin = 0
	}
	idle := -1 // where it became so, if nothing was asked for since
	for i, c := range calls {
		switch c.what {
		case "idle":
			begin, idle = -1, i
		case "forget":
			begin, idle = -1, -1
		case "asked":
			if idle < 0 {
				continue
			}
			deadlines := 0
			for _, c := range calls[idle:i] {
				if c.what == "deadline" {
					deadlines++
				}
			}
			if n = 4096 - c.room; deadlines == 1 && n >= 0 && n <= 3 {
				begin = i
			}
			idle = -1
		case "got":
			if begin < 0 {
				continue
			}
			all := has(calls, begin, i+1, n)
			if strings.HasPrefix(all, "PRI * HTTP/2.0") {
				return false, "" // now and for ever
			}
			if len(all) > 4096 || strings.Contains(all, "\n\n") || strings.Contains(all, "\n\r\n") {
				begin = -1
			}
		}
	}
	if begin < 0 {
		return false, ""
	}
	return true, has(calls, begin, len(calls), n)
}

// has is the last n bytes that were read before begin, and what was read until end.
func has(calls []call, begin, end, n int) string {
	read := func(calls []call) (all string) {
		for _, c := range calls {
			all += c.b
		}
		return all
	}
	before := "\x00\x00\x00" + read(calls[:begin]) // that many at least were read by who holds them
	return before[len(before)-n:] + read(calls[begin:end])
}

// Whatever the calls, a held knows what can be known, and never anything else.
func TestHeldExhaustively(t *testing.T) {
	t.Parallel()
	idle, deadline, forget := call{what: "idle"}, call{what: "deadline"}, call{what: "forget"}
	asked := func(room int) call { return call{what: "asked", room: room} }
	got := func(b string) call { return call{what: "got", b: b} }
	alphabet := []call{
		idle, deadline, forget,
		asked(4096), asked(4095), asked(4093), asked(4092), asked(1),
		got("a"), got("\n"), got("\r\nbc"), got("PRI * HTTP/2.0"),
	}
	for _, begin := range []struct {
		calls []call
		depth int
	}{
		{nil, 5},
		{[]call{got("x"), got("yz"), idle}, 4},
		{[]call{got("vwxyz"), idle, deadline}, 4},
		{[]call{got("v"), idle, deadline, asked(4095)}, 4},
		{[]call{got("\r\n"), idle, deadline, asked(4094)}, 4},
		{[]call{idle, deadline, asked(4096), got("PRI *"), got(" HTTP/2.0"), idle}, 3},
	} {
		for _, fresh := range []bool{false, true} {
			h := held{known: fresh}
			for _, c := range begin.calls {
				c.to(&h)
			}
			count := 0
			var walk func(h held, calls []call, depth int)
			walk = func(h held, calls []call, depth int) {
				count++
				if known, b := knows(fresh, calls); h.known != known || string(h.bytes) != b || !known && h.bytes != nil {
					t.Fatalf("fresh %t, %v: known %t, %q, want %t, %q", fresh, calls, h.known, h.bytes, known, b)
				}
				if depth == 0 {
					return
				}
				for _, c := range alphabet {
					h := h
					h.bytes = bytes.Clone(h.bytes) // for its array would be shared
					c.to(&h)
					walk(h, append(calls, c), depth-1)
				}
			}
			walk(h, begin.calls, begin.depth)
			if count < 1000 {
				t.Errorf("only %d sequences", count)
			}
		}
	}
}

// What net/http does, and what is known of it.
func TestHeldExamples(t *testing.T) {
	t.Parallel()
	const unknown = "unknown"
	for name, test := range map[string]struct {
		calls func(*held)
		want  string
	}{
		"new": {func(h *held) { h.known = true }, ""},
		"new, with deadlines": {func(h *held) {
			h.known = true
			h.deadlineSet()
			h.asked(4096)
			h.got([]byte("GET / HT"))
			h.asked(4088)
		}, "GET / HT"},
		"new, its preface is looked for": {func(h *held) {
			h.known = true
			h.asked(14) // net/http reads no further
			h.got([]byte("GET / HTTP/1.1"))
			h.asked(4082)
			h.got([]byte("\r\nHost: x\r\n"))
		}, "GET / HTTP/1.1\r\nHost: x\r\n"},
		"a header ends": {func(h *held) {
			h.known = true
			h.asked(4096)
			h.got([]byte("GET / HTTP/1.0\r\n\r"))
			h.got([]byte("\n"))
		}, unknown},
		"a body is read": {func(h *held) {
			h.asked(4096)
			h.got([]byte("12345"))
		}, unknown},
		"idle, and no read yet": {func(h *held) {
			h.got([]byte("12345"))
			h.becameIdle()
			h.deadlineSet()
		}, unknown},
		"idle": {func(h *held) {
			h.got([]byte("12345"))
			h.becameIdle()
			h.deadlineSet()
			h.asked(4096)
		}, ""},
		"idle, and something comes": {func(h *held) {
			h.becameIdle()
			h.deadlineSet()
			h.asked(4096)
			h.got([]byte("GE"))
			h.asked(4094)
			h.got([]byte("T /"))
			h.deadlineSet() // for the header
			h.deadlineSet()
			h.asked(4091)
		}, "GET /"},
		"idle, with the background read's byte": {func(h *held) {
			h.got([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			h.forget()
			h.deadlineSet()
			h.asked(1)
			h.got([]byte("G"))
			h.becameIdle()
			h.deadlineSet()
			h.asked(4095)
		}, "G"},
		"idle, with two bytes of the body's segment and the background read's": {func(h *held) {
			h.got([]byte("12345GE"))
			h.forget()
			h.asked(1)
			h.got([]byte("T"))
			h.becameIdle()
			h.deadlineSet()
			h.asked(4093)
		}, "GET"},
		"a line of the next request is there already": {func(h *held) {
			h.got([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n"))
			h.becameIdle()
			h.deadlineSet() // for the idle time, which is over at once
			h.deadlineSet() // for the header
			h.asked(4096 - 17)
		}, unknown},
		"a version that sets no deadline": {func(h *held) {
			h.becameIdle()
			h.asked(4096)
		}, unknown},
		"a version with another buffer": {func(h *held) {
			h.becameIdle()
			h.deadlineSet()
			h.asked(8192)
		}, unknown},
		"as much as can go": {func(h *held) {
			h.known = true
			h.got(bytes.Repeat([]byte("x"), moving.MaxHeld))
		}, strings.Repeat("x", moving.MaxHeld)},
		"more than can go": {func(h *held) {
			h.known = true
			h.got(bytes.Repeat([]byte("x"), moving.MaxHeld))
			h.got([]byte("x"))
		}, unknown},
		"HTTP/2": {func(h *held) {
			h.known = true
			h.got([]byte("PRI * HT"))
			h.got([]byte("TP/2.0\r"))
			h.becameIdle()
			h.deadlineSet()
			h.asked(4096)
		}, unknown},
		"pinned": {func(h *held) {
			h.never = true
			h.becameIdle()
			h.deadlineSet()
			h.asked(4096)
		}, unknown},
	} {
		var h held
		test.calls(&h)
		got := unknown
		if h.known {
			got = string(h.bytes)
		}
		if got != test.want {
			t.Errorf("%s: %.100q, want %.100q", name, got, test.want)
		}
	}
}

func (c call) String() string {
	switch c.what {
	case "asked":
		return fmt.Sprint("asked ", c.room)
	case "got":
		return fmt.Sprintf("got %q", c.b)
	}
	return c.what
}
