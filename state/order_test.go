package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// usable fails for values that begin with "bad".
func usable(raw json.RawMessage) error {
	if strings.HasPrefix(string(raw), `"bad`) {
		return errors.New("no good")
	}
	return nil
}

func at(t int64, version string) answer {
	raw, _ := json.Marshal(version)
	return answer{entry: entry{At: t, Version: version, Value: raw}}
}

// permutations calls fn with every order of every subset.
func permutations(list []answer, fn func([]answer)) {
	var walk func(have, left []answer)
	walk = func(have, left []answer) {
		fn(have)
		for i := range left {
			rest := slices.Delete(slices.Clone(left), i, i+1)
			walk(append(slices.Clone(have), left[i]), rest)
		}
	}
	walk(nil, list)
}

// TestOrder: whatever order the answers of two agents come in, twice some of them, what
// was seen last at the source stands in the end, and nothing ever goes back.
func TestOrder(t *testing.T) {
	old := at(2, "b")
	old.Value = nil // of a follower that had b by then
	n := 0
	permutations([]answer{at(1, "a"), at(2, "b"), old, at(3, "bad c"), at(4, "b"), at(5, "d"), at(5, "e")}, func(list []answer) {
		n++
		var m memory
		var seen int64
		for i, a := range list {
			if a.Value == nil && m.seen != a.Version {
				return // no agent answers so
			}
			before := m.good
			changed := m.take(a, 100, usable)
			seen = max(seen, a.At)
			if m.at != seen || m.good.At < before.At {
				t.Fatalf("%v: %+v after %d", list, m, i)
			}
			if changed != (m.good.Version != before.Version) {
				t.Fatalf("%v: %+v after %d: changed is %v", list, m, i, changed)
			}
			if m.good.At == m.at != (m.err == nil) || m.err != nil && !errors.Is(m.err, ErrDecode) {
				t.Fatalf("%v: %+v after %d", list, m, i)
			}
			if want := fmt.Sprintf("%q", m.good.Version); m.good.Version != "" && string(m.good.Value) != want {
				t.Fatalf("%v: %+v after %d", list, m, i)
			}
		}
		if len(list) == 0 {
			return
		}
		newest := list[0]
		for _, a := range list {
			if a.At > newest.At {
				newest = a
			}
		}
		if usable(newest.Value) == nil && m.good.Version != newest.Version {
			t.Fatalf("%v: %+v", list, m)
		}
	})
	t.Logf("%d orders", n)
}

// TestTake: what single answers do.
func TestTake(t *testing.T) {
	had := memory{good: at(5, "a").entry, seen: "a", at: 5}
	useless := memory{good: at(5, "a").entry, seen: "bad b", at: 7, bad: fmt.Errorf("%w: no good", ErrDecode)}
	useless.err = useless.bad
	failing := at(5, "a")
	failing.Value, failing.Err = nil, "no store"
	late := at(3, "z")
	late.Err = "no store"
	bare := answer{entry: entry{At: 9, Version: "z"}}
	same := func(t int64, v string) answer { return answer{entry: entry{At: t, Version: v}} }
	for name, c := range map[string]struct {
		m       memory
		a       answer
		good    string
		at      int64 // of the good one
		err     error
		changed bool
		seen    string
	}{
		"first":                       {memory{}, at(1, "a"), "a", 1, nil, true, "a"},
		"first, bad":                  {memory{}, at(1, "bad"), "", 0, ErrDecode, false, "bad"},
		"none":                        {memory{}, answer{None: true}, "", 0, ErrNone, false, ""},
		"none, and why":               {memory{}, answer{None: true, Err: "no store"}, "", 0, ErrSource, false, ""},
		"none any more":               {had, answer{None: true, Err: "no store"}, "a", 5, ErrNone, false, "a"},
		"confirmed":                   {had, same(6, "a"), "a", 6, nil, false, "a"},
		"confirmed, as a whole":       {had, at(6, "a"), "a", 6, nil, false, "a"},
		"newer":                       {had, at(6, "b"), "b", 6, nil, true, "b"},
		"newer, bad":                  {had, at(6, "bad"), "a", 5, ErrDecode, false, "bad"},
		"late":                        {had, at(4, "b"), "a", 5, nil, false, "a"},
		"late, of one that can't see": {had, late, "a", 5, ErrSource, false, "a"},
		"the same moment":             {had, at(5, "b"), "a", 5, nil, false, "a"},
		"source fails":                {had, failing, "a", 5, ErrSource, false, "a"},
		"of the future":               {had, at(1000, "b"), "b", 100, nil, true, "b"},
		"no value":                    {had, bare, "a", 5, ErrAgent, false, "a"},
		"no version":                  {had, at(6, ""), "a", 5, ErrAgent, false, "a"},
		"bad, still":                  {useless, same(8, "bad b"), "a", 5, ErrDecode, false, "bad b"},
		"bad, and back to the good":   {useless, at(8, "a"), "a", 8, nil, false, "a"},
		"bad, and a good one":         {useless, at(8, "c"), "c", 8, nil, true, "c"},
		"bad, and a good one is late": {useless, at(6, "c"), "a", 5, ErrDecode, false, "bad b"},
		"bad, and the source fails":   {useless, func() answer { a := same(7, "bad b"); a.Err = "no store"; return a }(), "a", 5, ErrSource, false, "bad b"},
	} {
		m := c.m
		changed := m.take(c.a, 100, usable)
		if m.good.Version != c.good || m.good.At != c.at || !errors.Is(m.err, c.err) || changed != c.changed || m.seen != c.seen {
			t.Errorf("%s: %+v, changed %v", name, m, changed)
		}
		if o := m.request().Offer; (o != nil) != (c.a.None && c.good != "") || o != nil && o.Version != c.good {
			t.Errorf("%s: offers %v", name, o)
		}
	}
	m := had
	m.failed(errors.New("nobody"))
	if !errors.Is(m.err, ErrAgent) || m.good.Version != "a" {
		t.Errorf("%+v", m)
	}
	if m.take(same(6, "a"), 100, usable); m.err != nil {
		t.Error(m.err)
	}
	m = useless
	m.failed(errors.New("nobody"))
	if m.take(same(8, "bad b"), 100, usable); !errors.Is(m.err, ErrDecode) {
		t.Error(m.err)
	}
}

// TestFormat: what two versions of a program say to one another. Fields may be added.
func TestFormat(t *testing.T) {
	full := entry{At: 5, Version: "v", Value: json.RawMessage(`{"a":1}`)}
	for want, v := range map[string]any{
		`{}`:              request{},
		`{"version":"v"}`: request{Version: "v"},
		`{"version":"w","offer":{"at":5,"version":"v","value":{"a":1}}}`: request{Version: "w", Offer: &full},
		`{"at":5,"version":"v","value":{"a":1}}`:                         answer{entry: full},
		`{"at":5,"version":"v","err":"no store"}`:                        answer{entry: entry{At: 5, Version: "v"}, Err: "no store"},
		`{"none":true,"err":"no store"}`:                                 answer{None: true, Err: "no store"},
	} {
		if got, err := json.Marshal(v); string(got) != want || err != nil {
			t.Errorf("%s, not %s: %v", got, want, err)
		}
	}
	if get, news := typeGet("v"), typeNew("v"); get != "state get v" || news != "state new v" {
		t.Errorf("%q, %q", get, news)
	}
}

// FuzzTake: an answer is anything. Nothing is taken that can't be used, and no time is
// of the future.
func FuzzTake(f *testing.F) {
	for _, a := range []answer{at(6, "b"), at(1, "bad"), {None: true, Err: "x"}} {
		b, _ := json.Marshal(a)
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		m := memory{good: at(5, "a").entry, seen: "a", at: 5}
		for _, b := range [][]byte{one, two} {
			var a answer
			if json.Unmarshal(b, &a) != nil {
				continue
			}
			before := m
			m.take(a, 100, func(raw json.RawMessage) error { var s string; return json.Unmarshal(raw, &s) })
			var s string
			if json.Unmarshal(m.good.Value, &s) != nil || m.good.Version == "" || m.at < before.at || m.at > 100 || m.good.At < before.good.At || m.good.At > m.at {
				t.Fatalf("%s: %+v", b, m)
			}
		}
	})
}
