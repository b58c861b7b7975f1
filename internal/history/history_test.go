package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
)

func at(min int) time.Time { return time.Date(2024, 5, 6, 7, min, 0, 0, time.UTC) }

// dead is a death with a dump and a reason of these lengths.
func dead(dump, reason int) Entry {
	return Entry{Time: at(1), Death: &Death{Group: "web", Dump: strings.Repeat("d", dump), Reason: strings.Repeat("r", reason)}}
}

// full has all that there may be.
func full() []Entry {
	return []Entry{
		{N: 3, Time: at(9), Death: &Death{
			Group: "web", Slot: 2, ID: 3, Generation: 4, Pid: 4711, Cause: "crash", Failure: true, Reason: "panic: no luck", Exit: "exit status 2",
			Started: at(7), Drain: at(8), Served: 120, MovedIn: 7, MovedOut: 6, Cut: 2, Terminated: true, Killed: true, Dump: "panic: no luck\n", DumpCut: 5,
		}},
		{N: 4, Time: at(10), Death: &Death{Group: "web", Slot: 1, ID: 1, Generation: 4, Cause: "upgrade"}},
		{N: 5, Time: at(11), Upgrade: &Upgrade{Generation: 5, Began: at(10), Result: "failed", Reason: "exit status 3", Output: "no database"}},
		{N: 6, Time: at(12), Upgrade: &Upgrade{Generation: 5, Result: "done"}},
	}
}

// check fails if the bounds, or the order, are not kept.
func check(t *testing.T, l *Log) {
	t.Helper()
	n, size := 0, 0
	for _, e := range l.entries {
		if e.N <= n || e.N > l.last {
			t.Fatalf("entry %d after %d, the last is %d", e.N, n, l.last)
		}
		n = e.N
		size += e.size()
	}
	if size != l.size || size > MaxBytes || len(l.entries) > MaxEntries {
		t.Fatalf("%d entries of %d bytes, counted as %d", len(l.entries), size, l.size)
	}
}

// TestBounds: the number of entries, and what the texts take.
func TestBounds(t *testing.T) {
	t.Parallel()
	var l Log
	for range 3 * MaxEntries {
		l.Add(dead(0, 0))
		check(t, &l)
	}
	if got := l.Entries(); len(got) != MaxEntries || got[0].N != 2*MaxEntries+1 || got[MaxEntries-1].N != 3*MaxEntries {
		t.Errorf("%d entries, from %d", len(got), got[0].N)
	}
	l = Log{}
	for range 100 {
		l.Add(dead(0, MaxText))
		check(t, &l)
	}
	if got := len(l.Entries()); got != MaxBytes/(MaxText+entryBytes+len("web")) {
		t.Errorf("%d entries with long reasons", got)
	}
}

// TestTexts: what is too long is cut, and of a dump it is said.
func TestTexts(t *testing.T) {
	t.Parallel()
	var l Log
	e := dead(MaxText+7, MaxText+1)
	e.Death.Exit = strings.Repeat("e", MaxText+1)
	l.Add(e)
	l.Add(Entry{Upgrade: &Upgrade{Reason: strings.Repeat("r", MaxText+1), Output: strings.Repeat("o", MaxText+1)}})
	got := l.Entries()
	if d := got[0].Death; len(d.Dump) != MaxText || d.DumpCut != 7 || len(d.Reason) != MaxText || len(d.Exit) != MaxText {
		t.Errorf("%d, %d, %d, %d", len(d.Dump), d.DumpCut, len(d.Reason), len(d.Exit))
	}
	if u := got[1].Upgrade; len(u.Reason) != MaxText || len(u.Output) != MaxText {
		t.Errorf("%d, %d", len(u.Reason), len(u.Output))
	}
	if len(e.Death.Dump) != MaxText+7 || e.Death.DumpCut != 0 {
		t.Error("what it was given has changed")
	}
	check(t, &l)
}

// TestDumpsGoFirst: for want of room the oldest dumps go, and the entries stay.
func TestDumpsGoFirst(t *testing.T) {
	t.Parallel()
	var l Log
	l.Add(dead(MaxText, 10))
	before := l.Entries()
	for range 99 {
		l.Add(dead(MaxText, 10))
		check(t, &l)
	}
	got := l.Entries()
	if len(got) != 100 {
		t.Fatalf("%d entries", len(got))
	}
	kept := 0
	for i, e := range got {
		switch {
		case e.Death.Dump == "" && e.Death.DumpCut == MaxText && kept == 0:
		case len(e.Death.Dump) == MaxText && e.Death.DumpCut == 0:
			kept++
		default:
			t.Errorf("entry %d: %d bytes, %d cut", i, len(e.Death.Dump), e.Death.DumpCut)
		}
	}
	if kept < 14 || kept > 16 {
		t.Errorf("%d dumps are left", kept)
	}
	if len(before[0].Death.Dump) != MaxText {
		t.Error("what somebody reads has changed")
	}
}

// TestRandom: whatever comes, the bounds are kept, what is newest is there, and another
// process has the same.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		var l Log
		for range 700 {
			e := dead(0, r.IntN(200))
			switch r.IntN(4) {
			case 0:
				e.Death.Dump = strings.Repeat("d", r.IntN(2*MaxText))
			case 1:
				e.Death.Reason = strings.Repeat("r", r.IntN(2*MaxText))
			case 2:
				e = Entry{Upgrade: &Upgrade{Output: strings.Repeat("o", r.IntN(2*MaxText))}}
			}
			l.Add(e)
			check(t, &l)
			if got := l.entries[len(l.entries)-1]; !reflect.DeepEqual(got.bounded(), Entry{N: l.last, Time: e.Time, Death: e.Death, Upgrade: e.Upgrade}.bounded()) {
				t.Fatal("the newest is not there")
			}
		}
		var b bytes.Buffer
		if err := l.Write(&b); err != nil {
			t.Fatal(err)
		}
		var next Log
		if err := next.Read(&b); err != nil {
			t.Fatal(err)
		}
		check(t, &next)
		if !reflect.DeepEqual(next.entries, l.entries) || next.last != l.last || next.size != l.size {
			t.Fatal("another process has something else")
		}
	}
}

// TestReadBefore: what another process had comes first, and the own is counted after it.
func TestReadBefore(t *testing.T) {
	t.Parallel()
	var l Log
	l.Add(dead(0, 1))
	l.Add(dead(0, 2))
	if err := l.Read(bytes.NewReader(golden.JSON(t, state{Version: version, Last: 8, Entries: full()}))); err != nil {
		t.Fatal(err)
	}
	check(t, &l)
	l.Add(dead(0, 3))
	var n []int
	for _, e := range l.Entries() {
		n = append(n, e.N)
	}
	if want := []int{3, 4, 5, 6, 9, 10, 11}; !reflect.DeepEqual(n, want) {
		t.Errorf("%v, not %v", n, want)
	}
}

// TestReadBad: what is no history does no harm.
func TestReadBad(t *testing.T) {
	t.Parallel()
	var many bytes.Buffer
	many.WriteString(`{"v":1,"entries":[`)
	for i := range 10 * MaxEntries {
		fmt.Fprintf(&many, `{"n":%d,"time":"2024-05-06T07:08:09Z","death":{"group":"web"}},`, i+1)
	}
	many.WriteString(`{}]}`)
	for name, c := range map[string]struct {
		text string
		bad  bool
		left int // entries, with one that was there
	}{
		"nothing":     {"", true, 1},
		"garbage":     {"\x00\x01", true, 1},
		"half":        {`{"v":1,"entries":[{"n":1,"death":{}},{"n`, true, 1},
		"other JSON":  {`[1,2]`, true, 1},
		"wrong types": {`{"v":1,"entries":[{"n":"one"}]}`, true, 1},
		"huge":        {`{"v":1,"entries":[{"n":1,"death":{"dump":"` + strings.Repeat("d", maxState) + `"}}]}`, true, 1},
		"empty":       {`{}`, false, 1},
		"no sense":    {`{"v":1,"last":-5,"entries":[{"n":0,"death":{}},{"n":2},{"n":3,"death":{}},{"n":3,"death":{}},{"n":1,"death":{}}]}`, false, 2},
		"many":        {many.String(), false, MaxEntries},
	} {
		var l Log
		l.Add(dead(0, 1))
		err := l.Read(strings.NewReader(c.text))
		if errors.Is(err, ErrState) != c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		check(t, &l)
		if got := l.Entries(); len(got) != c.left || len(got[len(got)-1].Death.Reason) != 1 {
			t.Errorf("%s: %d entries", name, len(got))
		}
	}
}

// TestFormat: what parents of other versions, and scripts, read.
func TestFormat(t *testing.T) {
	golden.Check(t, "history.json", [][]byte{golden.JSON(t, state{Version: version, Last: 6, Entries: full()})})
}

// TestLaterFormat: what is not known yet is skipped.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	line := golden.Lines(t, "history.json")[0]
	for _, line := range [][]byte{line, golden.Later(line, "v", "n", "time", "group", "cause", "result")} {
		var l Log
		if err := l.Read(bytes.NewReader(line)); err != nil {
			t.Fatal(err)
		}
		if got := l.Entries(); !reflect.DeepEqual(got, full()) {
			t.Errorf("%s means\n%+v", line, got)
		}
	}
}

// TestConcurrent: everybody may add and read.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	var l Log
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				l.Add(dead(MaxText, 1))
				for _, e := range l.Entries() {
					_ = len(e.Death.Dump)
				}
			}
		})
	}
	wg.Wait()
	check(t, &l)
	if l.last != 800 {
		t.Errorf("%d were counted", l.last)
	}
}
