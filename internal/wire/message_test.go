package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestCmd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{
		{`{"cmd":"NODE_HANDOVER_READY","x":[1,{"cmd":"no"}]}`, "NODE_HANDOVER_READY"},
		{` {"cmd" : "a\u0062" } `, "ab"},
		{"{\"cmd\":\"x\"}\r", "x"},
		{`{}`, ""},
		{`{"Cmd":"x","CMD":"y"}`, ""},
		{`{"cmd":"x","cmd":"y"}`, "y"},
		{`{"cmd":5}`, ""},
		{`{"cmd":null}`, ""},
	} {
		if got, err := Cmd([]byte(tt.line)); got != tt.want || err != nil {
			t.Errorf("Cmd(%s) = %q, %v; want %q", tt.line, got, err, tt.want)
		}
	}
}

func TestCmdBad(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line string
		json bool
	}{
		{`"ready"`, true}, {`5`, true}, {`null`, true}, {`[{"cmd":"x"}]`, true},
		{``, false}, {`{`, false}, {`{"cmd":"x"}}`, false}, {`{"cmd":x}`, false},
		{"\x00\xff", false}, {`{"cmd":"` + strings.Repeat("x", 1000), false},
		{strings.Repeat(`{"a":`, 20000), false},
	} {
		cmd, err := Cmd([]byte(tt.line))
		var bad *BadMessageError
		if cmd != "" || !errors.Is(err, ErrBadMessage) || !errors.As(err, &bad) || bad.JSON != tt.json {
			t.Errorf("Cmd(%.20s) = %q, %v", tt.line, cmd, err)
		} else if len(err.Error()) > 5*excerptLen {
			t.Errorf("the error is %d bytes long", len(err.Error()))
		}
	}
}

// Cmd agrees with decoding all of the line.
func FuzzCmd(f *testing.F) {
	for _, s := range []string{`{"cmd":"NODE_HANDLE","type":"net.Server","msg":"server"}`, `{"cmd":5}`, `"ready"`,
		`{"cmd":"a","cmd":null}`, "", "{", "null", "\xff", `{"cmd":"\ud800"}`, " {} ", `{"Cmd":"x"}`, "1E1000", `{"cmd":"x","n":1E1000}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		cmd, err := Cmd(line)
		var v any
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.UseNumber() // a float64 does not hold every number that JSON allows
		valid := decoder.Decode(&v) == nil && json.Valid(line)
		object, isObject := v.(map[string]any)
		var bad *BadMessageError
		switch {
		case valid && isObject:
			if want, _ := object["cmd"].(string); err != nil || cmd != want {
				t.Fatalf("Cmd(%q) = %q, %v; want %q", line, cmd, err, want)
			}
		case !errors.As(err, &bad) || bad.JSON != valid || cmd != "":
			t.Fatalf("Cmd(%q) = %q, %v; JSON: %v", line, cmd, err, valid)
		}
	})
}

// FuzzMessages: whatever a line says of messages, it says the same after it was read and
// written again, by this program's parent for instance.
func FuzzMessages(f *testing.F) {
	for _, v := range messages {
		line, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	for _, s := range []string{
		`{"cmd":"NODE_HANDOVER_MESSAGE","n":-1,"files":-1,"to":{"to":"moon","slot":-5},"type":"\ud800","data":"<\u2028>"}`,
		`{"n":1e3}`, `{"N":1,"data":null}`, `{"data": [ 1 ] }`, `{"sent":[],"have":null,"forgot":-1}`, `{"to":"all"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		again[Message](t, line)
		again[Result](t, line)
		again[Again](t, line)
		again[Mail](t, line)
		again[Who](t, line)
	})
}

func again[T any](t *testing.T, line []byte) {
	t.Helper()
	var first, second T
	if json.Unmarshal(line, &first) != nil {
		return
	}
	out, err := json.Marshal(first)
	if err != nil {
		t.Fatalf("%q is read as %+v, which can't be written: %v", line, first, err)
	}
	if err := json.Unmarshal(out, &second); err != nil {
		t.Fatalf("%q is written as %q: %v", line, out, err)
	}
	if third, err := json.Marshal(second); err != nil || !bytes.Equal(third, out) {
		t.Fatalf("%q is written as %q, and then as %q (%v)", line, out, third, err)
	}
}

func BenchmarkCmd(b *testing.B) {
	line := []byte(`{"cmd":"NODE_HANDOVER_STATE","id":7,"state":"serving","counters":{"accepted":12,"open":3}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Cmd(line); err != nil {
			b.Fatal(err)
		}
	}
}
