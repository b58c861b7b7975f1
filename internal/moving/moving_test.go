package moving

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func (m Message) equal(o Message) bool {
	return cmp.Or(m.Kind, HTTP) == cmp.Or(o.Kind, HTTP) && m.Idle == o.Idle && m.Post == o.Post &&
		bytes.Equal(m.Held, o.Held) && bytes.Equal(m.State, o.State)
}

// What is decoded is what was encoded, but for times, which are rounded.
func TestEncode(t *testing.T) {
	const longest = math.MaxUint32 * time.Millisecond
	for idle, want := range map[time.Duration]time.Duration{
		0:                    0,
		-time.Second:         0,
		1:                    time.Millisecond,
		time.Millisecond:     time.Millisecond,
		time.Millisecond + 1: 2 * time.Millisecond,
		90 * time.Second:     90 * time.Second,
		longest - 1:          longest,
		longest + time.Hour:  longest,
		math.MaxInt64 / 2:    longest,
	} {
		for _, post := range []bool{false, true} {
			for _, n := range []int{0, 1, 4, 255, MaxHeld} {
				m := Message{Idle: idle, Post: post, Held: bytes.Repeat([]byte("x"), n)}
				got, _, err := decode(encode(nil, m))
				if m.Idle = want; err != nil || !got.equal(m) {
					t.Errorf("%v, %t, %d bytes: %v, %t, %d bytes, %v", idle, post, n, got.Idle, got.Post, len(got.Held), err)
				}
			}
		}
	}
}

// The format is what other processes, of other versions, write.
func TestFormat(t *testing.T) {
	m := Message{Idle: 259 * time.Millisecond, Post: true, Held: []byte("GET")}
	if got := string(encode(nil, m)); got != "h\x01\x08\x01\x00\x00\x01\x03GET" {
		t.Errorf("encoded %q", got)
	}
	stream := Message{Kind: Stream, State: []byte("state")}
	if got := string(encode(nil, stream)); got != "s\x01\x08\x00\x00\x00\x00\x05state" {
		t.Errorf("encoded %q", got)
	}
	stream.State = make([]byte, MaxHeld+1)
	large := encode(nil, stream)
	if string(large) != "s\x01\x08\x01\x00\x00\x10\x01" {
		t.Errorf("encoded %q", large)
	}
	if m, file, err := decode(large); err != nil || file != MaxHeld+1 || !m.equal(Message{Kind: Stream}) {
		t.Errorf("%+v, %d, %v", m, file, err)
	}
	for in, want := range map[string]Message{
		"s\x01\x08\x00\x00\x00\x00\x00":           {Kind: Stream},
		"s\x02\x0a\x80\x00\x00\x00\x02newS":       {Kind: Stream, State: []byte("wS")},
		"h\x01\x08\x00\x00\x00\x00\x00":           {},
		"h\x01\x08\x01\x00\x00\x00\x01\r\n":       {Post: true, Idle: time.Millisecond, Held: []byte("\r\n")},
		"h\x02\x0a\x01\x00\x00\x00\x00newHELD":    {Post: true, Held: []byte("wHELD")}, // of a later version
		"h\x02\x0b\xff\x00\x00\x00\x00new":        {Post: true},
		"h\xff\xff" + strings.Repeat("\x00", 253): {Held: []byte{0}},
	} {
		if got, _, err := decode([]byte(in)); err != nil || !got.equal(want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

var garbled = []string{
	"",
	"h",
	"h\x01\x08\x00\x00\x00\x00",           // short
	"\x00\x01\x08\x00\x00\x00\x00\x00",    // no kind
	"h\x00\x08\x00\x00\x00\x00\x00",       // no version
	"h\x01\x07\x00\x00\x00\x00\x00",       // a header that is too short
	"h\x01\x09\x00\x00\x00\x00\x00",       // and one that is not there
	"GET / HTTP/1.1\r\nHost: example\r\n", // somebody else's
	"h\x01\x08\x00\x00\x00\x00\x00" + strings.Repeat("x", MaxHeld+1),
}

// garbledStreams are those that a taker of streams finds garbled.
var garbledStreams = []string{
	"s\x01\x08\x00\x00\x00\x00\x02x", // a state that is not all there
	"s\x01\x08\x00\x00\x00\x00\x00x", // or more than all
	"s\x01\x08\x01\x00\x00\x10\x01x", // in a file, and here
	"s\x01\x08\x01\x00\x10\x00\x01",  // too long
	"s\x01\x08\x00\x00\x00\x10\x01" + strings.Repeat("x", MaxHeld+1),
	"s\x01\x0c\x00\x00\x00\x00\x00", // a header that is not there
}

func TestGarbled(t *testing.T) {
	for _, in := range append(garbledStreams, garbled...) {
		if m, _, err := decode([]byte(in)); !errors.Is(err, ErrMessage) || !m.equal(Message{}) {
			t.Errorf("%.20q: %+v, %v", in, m, err)
		}
	}
}

// FuzzDecode decodes anything: what is accepted is what it says, and encodes to what
// decodes alike.
func FuzzDecode(f *testing.F) {
	for _, s := range append(garbledStreams, garbled...) {
		f.Add([]byte(s))
	}
	f.Add(encode(nil, Message{Kind: Stream, State: []byte("state")}))
	f.Add(encode(nil, Message{Kind: Stream, State: make([]byte, MaxState)}))
	f.Add(encode(nil, Message{Idle: time.Minute, Post: true, Held: []byte("GET / HT")}))
	f.Add([]byte("h\x02\x0a\x01\x00\x00\x00\x00newHELD"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, file, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) || !m.equal(Message{}) {
				t.Errorf("%+v, %v", m, err)
			}
			return
		}
		if n := len(m.Held) + len(m.State); n > MaxHeld || !bytes.HasSuffix(b, append(m.Held, m.State...)) || len(b)-n > maxHeader {
			t.Errorf("%d of %d bytes held", n, len(b))
		}
		if file != 0 {
			m.State = make([]byte, file)
			if again, n, err := decode(encode(nil, m)); file > MaxHeld && (err != nil || n != file || again.State != nil) {
				t.Errorf("a file of %d bytes became one of %d, %v", file, n, err)
			}
			return
		}
		if again, _, err := decode(encode(nil, m)); err != nil || !again.equal(m) {
			t.Error(fmt.Errorf("%+v became %+v, %w", m, again, err))
		}
	})
}
