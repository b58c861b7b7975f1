package logs

import (
	"bytes"
	"context"
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

var t0 = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func worker(n int) Worker { return Worker{Group: "web", Slot: n, ID: n, Generation: 1, Pid: 4000 + n} }

func all(Worker) bool { return true }

func only(w Worker) func(Worker) bool { return func(o Worker) bool { return o == w } }

const many = 1 << 30

func first(lines []Line, _ int) []Line { return lines }

func listed(b *Book) []Line { return first(b.Lines(all, 0, many)) }

// check fails if the bounds, or the order, are not kept.
func check(t *testing.T, b *Book) {
	t.Helper()
	total := 0
	one := func(l *log) {
		size, n := 0, 0
		for _, line := range l.lines {
			if line.N <= n || line.N > b.last || line.Worker != l.worker {
				t.Fatalf("line %d after %d of %d, of %v in %v", line.N, n, b.last, line.Worker, l.worker)
			}
			n = line.N
			size += line.size()
		}
		if size != l.size || size > MaxWorker {
			t.Fatalf("%v: %d bytes, counted as %d", l.worker, size, l.size)
		}
		total += size
	}
	for w, l := range b.live {
		if w != l.worker {
			t.Fatalf("%v is at %v", l.worker, w)
		}
		one(l)
	}
	for _, l := range b.dead {
		if b.live[l.worker] != nil {
			t.Fatalf("%v is dead and alive", l.worker)
		}
		one(l)
	}
	if total != b.size || total > MaxBytes || len(b.dead) > MaxDead {
		t.Fatalf("%d bytes, counted as %d; %d dead", total, b.size, len(b.dead))
	}
}

func texts(lines []Line) (s []string) {
	for _, l := range lines {
		s = append(s, l.Text)
	}
	return s
}

// TestLines: in the order in which they were printed, of those who are asked for, the
// last ones, or those that came after one.
func TestLines(t *testing.T) {
	t.Parallel()
	var b Book
	for i := range 9 {
		b.Add(t0, worker(i%3), "stdout", fmt.Sprint(i))
	}
	b.End(worker(1))
	b.End(worker(7)) // who has printed nothing
	for _, c := range []struct {
		match    func(Worker) bool
		after, n int
		want     string
	}{
		{all, 0, many, "0 1 2 3 4 5 6 7 8"},
		{all, 0, 2, "7 8"},
		{all, 7, many, "7 8"},
		{all, 9, many, ""},
		{all, 0, 0, ""},
		{only(worker(1)), 0, many, "1 4 7"},
		{only(worker(1)), 3, 1, "7"},
		{only(worker(5)), 0, many, ""},
	} {
		if got := strings.Join(texts(first(b.Lines(c.match, c.after, c.n))), " "); got != c.want {
			t.Errorf("after %d, %d: %q, not %q", c.after, c.n, got, c.want)
		}
	}
	if l := first(b.Lines(all, 0, 1))[0]; l.N != 9 || l.Worker != worker(2) || l.Stream != "stdout" || !l.Time.Equal(t0) {
		t.Errorf("%+v", l)
	}
	b.Add(t0, worker(1), "stderr", "from what it has started")
	check(t, &b)
	if len(b.live) != 2 || len(b.dead) != 1 || len(b.dead[0].lines) != 4 {
		t.Errorf("%d live, %d dead", len(b.live), len(b.dead))
	}
}

// TestBounds: of one worker, of the dead, of all; and what goes first.
func TestBounds(t *testing.T) {
	t.Parallel()
	var b Book
	long := strings.Repeat("x", 1000)
	for range 100 {
		b.Add(t0, worker(1), "stdout", long)
		check(t, &b)
	}
	if n := len(listed(&b)); n != MaxWorker/(1000+lineBytes) {
		t.Errorf("%d lines of one worker", n)
	}
	b.Add(t0, worker(1), "stdout", strings.Repeat("\xff", 10*MaxWorker))
	check(t, &b)
	if got := listed(&b); got[len(got)-1].Text != strings.Repeat("?", 1) {
		t.Errorf("a line of garbage is %.20q", got[len(got)-1].Text)
	}
	for i := range 2 * MaxDead {
		b.Add(t0, worker(i+10), "stdout", "x")
		b.End(worker(i + 10))
		check(t, &b)
	}
	if b.dead[0].worker != worker(MaxDead+10) {
		t.Errorf("the first of the dead is %v", b.dead[0].worker)
	}
	for i := range 100 {
		for range 60 {
			b.Add(t0, worker(i+1000), "stdout", long)
		}
		check(t, &b)
		if i >= 64 && len(b.dead) > 0 {
			t.Error("the living go before the dead")
		}
	}
}

// TestRandom: whatever comes, the bounds are kept, and another process has the same.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 1))
		var b Book
		for range 2000 {
			w := worker(r.IntN(200))
			if r.IntN(10) == 0 {
				b.End(w)
			} else {
				b.Add(t0, w, "stdout", strings.Repeat("x", r.IntN(1+r.IntN(MaxWorker))))
			}
		}
		check(t, &b)
		var text bytes.Buffer
		if err := b.Write(&text); err != nil {
			t.Fatal(err)
		}
		var next Book
		if err := next.Read(&text); err != nil {
			t.Fatal(err)
		}
		check(t, &next)
		if next.last != b.last || next.size != b.size || !reflect.DeepEqual(listed(&next), listed(&b)) ||
			len(next.live) != len(b.live) || len(next.dead) != len(b.dead) {
			t.Fatal("another process has something else")
		}
		for i, l := range b.dead {
			if next.dead[i].worker != l.worker {
				t.Fatal("the dead are in another order")
			}
		}
	}
}

// someState has all that there may be.
func someState() state {
	return state{Version: version, Last: 9, Logs: []logState{
		{Worker: worker(1), Dead: true, N: []int{3}, MS: []int64{t0.UnixMilli()}, Streams: "e", Text: "panic\n"},
		{Worker: worker(2), N: []int{2, 5}, MS: []int64{t0.UnixMilli(), t0.UnixMilli()}, Streams: "oo", Text: "hello\nworld\n"},
	}}
}

// TestReadBefore: what another process had comes first, and a worker goes on where it
// was.
func TestReadBefore(t *testing.T) {
	t.Parallel()
	var b Book
	b.Add(t0, worker(2), "stdout", "own")
	b.Add(t0, worker(3), "stdout", "new")
	b.Add(t0, worker(4), "stdout", "dead")
	b.End(worker(4))
	if err := b.Read(bytes.NewReader(golden.JSON(t, someState()))); err != nil {
		t.Fatal(err)
	}
	check(t, &b)
	got := listed(&b)
	if want := "hello panic world own new dead"; strings.Join(texts(got), " ") != want || got[3].N != 10 || b.last != 12 {
		t.Errorf("%q, %d", texts(got), got[3].N)
	}
	if len(b.dead) != 2 || len(b.live) != 2 {
		t.Errorf("%d dead, %d live", len(b.dead), len(b.live))
	}
}

// TestReadBad: what is no memory does no harm.
func TestReadBad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		bad  bool
		want string
	}{
		"nothing":     {"", true, "own"},
		"garbage":     {"\x00\x01", true, "own"},
		"half":        {`{"v":1,"logs":[{"group":"web","n":[1]`, true, "own"},
		"wrong types": {`{"v":1,"last":"x"}`, true, "own"},
		"huge":        {`{"v":1,"logs":[{"n":[1],"ms":[1],"streams":"o","text":"` + strings.Repeat("x", maxState) + `"}]}`, true, "own"},
		"empty":       {`{}`, false, "own"},
		"no sense":    {`{"last":-4,"logs":[{"n":[0,3,3,4],"ms":[1,1,1,1],"streams":"ooox","text":"a\nb\nc\nd\n"},{"n":[4],"ms":[1],"streams":"o","text":"e"}]}`, false, "b own"},
		"too short":   {`{"logs":[{"n":[1,2,3],"ms":[1,1],"streams":"ooo","text":"a\nb\nc\n"},{"id":1,"n":[4],"ms":[1],"streams":"","text":"d"},{"id":2,"text":"e\n"}]}`, false, "a b own"},
	} {
		var b Book
		b.Add(t0, worker(1), "stdout", "own")
		if err := b.Read(strings.NewReader(c.text)); errors.Is(err, ErrState) != c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		check(t, &b)
		if got := strings.Join(texts(listed(&b)), " "); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestFormat: what parents of other versions read.
func TestFormat(t *testing.T) {
	golden.Check(t, "logs.json", [][]byte{golden.JSON(t, someState()), golden.JSON(t, Line{N: 3, Time: t0, Worker: worker(1), Stream: "stdout", Text: "hello"})})
}

// TestLaterFormat: what is not known yet is skipped.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	line := golden.Lines(t, "logs.json")[0]
	for _, line := range [][]byte{line, golden.Later(line, "v", "last", "group", "streams", "n")} {
		if got := golden.Read[state](t, line); !reflect.DeepEqual(got, someState()) {
			t.Errorf("%s means\n%+v", line, got)
		}
	}
}

// TestFollow: who follows gets what was there and what comes, once and in order.
func TestFollow(t *testing.T) {
	t.Parallel()
	var b Book
	for i := range 5 {
		b.Add(t0, worker(i%2), "stdout", fmt.Sprint(i))
	}
	f := b.Follow(only(worker(0)), 0, 2)
	defer f.Close()
	b.Add(t0, worker(1), "stdout", "not its")
	b.Add(t0, worker(0), "stdout", "5")
	lines, missed, err := f.Next(t.Context())
	if got := strings.Join(texts(lines), " "); got != "2 4 5" || missed != 0 || err != nil {
		t.Errorf("%q, %d, %v", got, missed, err)
	}
	b.Add(t0, worker(0), "stdout", "6")
	if lines, _, _ := f.Next(t.Context()); len(lines) != 1 || lines[0].Text != "6" {
		t.Errorf("%v", lines)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	f.Close()
	b.Add(t0, worker(0), "stdout", "7")
	if len(f.queue) != 0 || len(b.followers) != 0 {
		t.Error("it is told after its end")
	}
}

// TestSlow: who does not read is not waited for, and is told how many lines it has missed.
func TestSlow(t *testing.T) {
	t.Parallel()
	var b Book
	const n, size = 3000, 1000
	for range n {
		b.Add(t0, worker(1), "stdout", strings.Repeat("x", size))
	}
	f := b.Follow(all, 0, many)
	defer f.Close()
	for i := range n {
		b.Add(t0, worker(i), "stdout", strings.Repeat("x", size))
	}
	b.Add(t0, worker(1), "stdout", "x") // there would be room for this one
	lines, missed, err := f.Next(t.Context())
	if err != nil || len(lines) != maxQueue/(size+lineBytes) || len(lines)+missed != n+1+MaxWorker/(size+lineBytes) {
		t.Fatalf("%d lines, %d missed, %v", len(lines), missed, err)
	}
	for i, l := range lines {
		if i > 0 && l.N != lines[i-1].N+1 {
			t.Fatalf("%d after %d", l.N, lines[i-1].N)
		}
	}
	b.Add(t0, worker(1), "stdout", "x")
	if lines, missed, _ := f.Next(t.Context()); len(lines) != 1 || missed != 0 {
		t.Errorf("%d lines, %d missed", len(lines), missed)
	}
	// One that begins with more than it can be given gets the last of it.
	all := b.Follow(all, 0, many)
	defer all.Close()
	lines, missed, _ = all.Next(t.Context())
	if missed != 0 || lines[len(lines)-1].N != b.last || len(lines) < maxQueue/(size+lineBytes) {
		t.Errorf("%d lines to %d of %d, %d missed", len(lines), lines[len(lines)-1].N, b.last, missed)
	}
}

// TestConcurrent: everybody may print, read and follow.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	var b Book
	var printing, following sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	const n = 500
	for range 2 {
		f := b.Follow(all, 0, many)
		following.Go(func() {
			defer f.Close()
			for got := 0; got < 4*n; {
				lines, missed, err := f.Next(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				got += len(lines) + missed
			}
		})
	}
	for i := range 4 {
		printing.Go(func() {
			for range n {
				b.Add(t0, worker(i), "stdout", "x")
				b.Lines(all, 0, 10)
			}
			b.End(worker(i))
		})
	}
	printing.Wait()
	following.Wait()
	cancel()
	check(t, &b)
}
