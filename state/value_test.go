package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/message"
)

// TestAge: what Get says while the source changes, fails for an hour, and is back.
func TestAge(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := b.serve(b.poll())
		v := b.follow(Options[string]{})
		within := func(what, value string, from, to time.Duration, want error) {
			t.Helper()
			synctest.Wait()
			r := v.Get()
			if r.Value != value || r.Version == "" || !r.OK || !errors.Is(r.Err, want) || r.Age() < from || r.Age() > to {
				t.Errorf("%s: %+v, age %v", what, r, r.Age())
			}
		}
		within("at first", "one", 0, 0, nil)
		for range 100 {
			time.Sleep(time.Second / 3)
			within("all is well", "one", 0, 3300*time.Millisecond, nil)
		}
		changed := v.Changed()
		since := v.Get().Since
		b.set("two", nil)
		<-changed
		within("changed", "two", 0, 0, nil)
		if !v.Get().Since.After(since) {
			t.Error("it is not told since when")
		}
		b.set(nil, errors.New("no store"))
		time.Sleep(time.Hour)
		within("an hour without", "two", time.Hour-4*time.Second, time.Hour, ErrSource)
		if err := v.Get().Err; !strings.Contains(err.Error(), "no store") {
			t.Error(err)
		}
		changed = v.Changed()
		b.set("two", nil)
		time.Sleep(4 * time.Second)
		within("back, and the same", "two", 0, 3300*time.Millisecond, nil)
		select {
		case <-changed:
			t.Error("the same value is said to be another")
		default:
		}
		s.Close()
		time.Sleep(time.Hour)
		within("no agent", "two", time.Hour-4*time.Second, time.Hour+4*time.Second, ErrAgent)
		v.Close()
		within("closed", "two", time.Hour-4*time.Second, time.Hour+4*time.Second, ErrAgent)
		for _, words := range []string{`msg="the source fails`, "the source works again", "in doubt", "right again"} {
			want := 1
			if words == "in doubt" {
				want = 2
			}
			if n := strings.Count(b.log.String(), words); n != want {
				t.Errorf("%q is logged %d times:\n%s", words, n, b.log.String())
			}
		}
	})
}

// TestBeats: how often followers and sources ask, and that a change is heard of without
// waiting for that.
func TestBeats(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := b.serve(b.poll())
		asked := 0
		b.e.Handle(typeGet("v"), func(ctx context.Context, m *message.Message) (any, error) {
			asked++
			return s.handle(ctx, m)
		})
		v := b.follow(Options[string]{Beat: time.Minute})
		time.Sleep(100 * time.Minute)
		synctest.Wait()
		if asked < 90 || asked > 115 {
			t.Errorf("asked %d times in 100 beats", asked)
		}
		if b.reads != 6001 {
			t.Errorf("%d reads in 6000 s", b.reads)
		}
		for i := range 10 {
			c := v.Changed()
			b.set(fmt.Sprint("v", i), nil)
			time.Sleep(time.Second)
			synctest.Wait()
			select {
			case <-c:
			default:
				t.Fatal("it waits for its beat")
			}
			if r := v.Get(); r.Value != fmt.Sprint("v", i) {
				t.Errorf("%+v", r)
			}
		}
		v.Close()
		s.Close()
	})
}

// TestConflation: a follower that is slow gets the last value and not all of them, and
// nothing queues up for it.
func TestConflation(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var report func(Found)
		ready := make(chan struct{})
		s := b.serve(watcher(func(ctx context.Context, r func(Found)) error {
			report = r
			r(Found{Value: 0})
			close(ready)
			<-ctx.Done()
			return nil
		}))
		<-ready
		decoded := 0
		v, err := follow(t.Context(), b.origin(), Options[int]{Decode: func(raw json.RawMessage) (n int, err error) {
			decoded++
			time.Sleep(time.Second)
			return n, json.Unmarshal(raw, &n)
		}}, b.clock)
		if err != nil {
			t.Fatal(err)
		}
		const n = 10_000
		for i := range n {
			report(Found{Value: i + 1})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := v.Get().Value; got != n {
			t.Errorf("%d, not %d", got, n)
		}
		if decoded < 5 || decoded > 20 {
			t.Errorf("%d values were decoded in 10 s, at one a second", decoded)
		}
		v.Close()
		s.Close()
	})
}

// TestLocal: a process follows what it serves itself.
func TestLocal(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := b.serve(b.poll())
		var list []*Value[string]
		for range 3 {
			v, err := follow(t.Context(), s, Options[string]{Beat: time.Hour}, b.clock)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, v)
		}
		list[0].Close()
		b.set("two", nil)
		time.Sleep(time.Second)
		synctest.Wait()
		for i, want := range []string{"one", "two", "two"} {
			if got := list[i].Get().Value; got != want {
				t.Errorf("%d: %q", i, got)
			}
		}
		s.Close()
		time.Sleep(2 * time.Hour)
		if r := list[1].Get(); r.Value != "two" || !errors.Is(r.Err, ErrAgent) {
			t.Errorf("%+v", r)
		}
		list[1].Close()
		list[2].Close()
		if len(s.local) != 0 {
			t.Errorf("%d follow", len(s.local))
		}
	})
}

// TestGet: many read while the value changes, and it never goes back.
func TestGet(t *testing.T) {
	e := message.NewAlone("main")
	defer func() { e.Close(nil); e.Wait() }()
	var n atomic.Int64
	s, err := Serve(e, "v", Poll(time.Millisecond, func(context.Context) (int64, string, error) { return n.Add(1), "", nil }), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := Follow(t.Context(), s, Options[int64]{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := int64(0)
			for range 10_000 {
				c := v.Changed()
				r := v.Get()
				if r.Value < last {
					t.Errorf("%d after %d", r.Value, last)
				}
				last = r.Value
				_ = c
			}
		})
	}
	wg.Wait()
	for range 10 {
		<-v.Changed()
	}
}
