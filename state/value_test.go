package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/message"
)

// bubble is a service of one process in which time is not real.
type bubble struct {
	t     *testing.T
	e     *message.Endpoint
	log   logBuffer
	began time.Time

	mu    sync.Mutex
	value any
	err   error
	reads int
}

func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, e: message.NewAlone("main"), began: time.Now(), value: "one"}
		test(t, b)
		b.e.Close(nil)
		b.e.Wait()
	})
}

func (b *bubble) clock() int64         { return int64(time.Since(b.began)) + 1 }
func (b *bubble) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&b.log, nil)) }
func (b *bubble) origin() Origin       { return From(b.e, message.Slot("main", 1), "v") }

func (b *bubble) set(v any, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.value, b.err = v, err
}

func (b *bubble) poll() Source {
	return Poll(time.Second, func(context.Context) (any, string, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reads++
		return b.value, "", b.err
	})
}

func (b *bubble) serve(src Source) *Server {
	b.t.Helper()
	s, err := serve(b.e, "v", src, b.logger(), b.clock)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bubble) follow(opt Options[string]) *Value[string] {
	b.t.Helper()
	opt.Logger = b.logger()
	v, err := follow(b.t.Context(), b.origin(), opt, b.clock)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

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

type watcher func(context.Context, func(Found)) error

func (w watcher) Watch(ctx context.Context, report func(Found)) error { return w(ctx, report) }

// TestSourceEnds: a source that ends, fails or panics is begun again, not too often, and
// values that can't be are failures of it.
func TestSourceEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := 0
		s := b.serve(watcher(func(_ context.Context, report func(Found)) error {
			report(Found{Value: "one"})
			switch n++; n % 3 {
			case 0:
				return errors.New("no luck")
			case 1:
				panic("no luck at all")
			}
			return nil
		}))
		v := b.follow(Options[string]{})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n < 120 || n > 140 {
			t.Errorf("begun %d times in an hour", n)
		}
		if r := v.Get(); r.Value != "one" || !errors.Is(r.Err, ErrSource) {
			t.Errorf("%+v", r)
		}
		s.Close()
		v.Close()
	})
	for want, f := range map[string]Found{
		"the value: json":                {Value: make(chan int)},
		"the value has":                  {Value: strings.Repeat("x", MaxValue)},
		"the most is 256":                {Value: 1, Version: strings.Repeat("x", 257)},
		"no luck":                        {Err: errors.New("no luck"), Value: 5},
		"it is not JSON":                 {Value: []byte("{")},
		"a string is no JSON text":       {Value: "{}"},
		"json: error calling MarshalJSO": {Value: json.RawMessage("{")},
	} {
		inBubble(t, func(t *testing.T, b *bubble) {
			var src Source = watcher(func(ctx context.Context, report func(Found)) error {
				report(f)
				<-ctx.Done()
				return nil
			})
			if strings.Contains(want, "JSON") && !strings.Contains(want, "Marshal") {
				src = JSON(src)
			}
			s := b.serve(src)
			v, err := follow(t.Context(), b.origin(), Options[any]{Wait: time.Second}, b.clock)
			if v != nil || !errors.Is(err, ErrNone) || !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
			s.Close()
		})
	}
}

// TestDecode: what can't be decoded, or checked, does not take the place of what could.
func TestDecode(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		check := func(raw json.RawMessage) error {
			if strings.Contains(string(raw), "refused") {
				return errors.New("not this one")
			}
			return nil
		}
		s := b.serve(Check(b.poll(), check))
		opt := Options[string]{Decode: func(raw json.RawMessage) (v string, err error) {
			if strings.Contains(string(raw), "panic") {
				panic("what is that?")
			}
			return v, json.Unmarshal(raw, &v)
		}}
		v := b.follow(opt)
		for _, c := range []struct {
			value any
			err   error
			text  string
		}{{5, ErrDecode, "number"}, {"panic", ErrDecode, "what is that?"}, {"refused", ErrSource, "not this one"}} {
			changed := v.Changed()
			b.set(c.value, nil)
			time.Sleep(time.Minute)
			r := v.Get()
			if r.Value != "one" || !r.OK || !errors.Is(r.Err, c.err) || !strings.Contains(r.Err.Error(), c.text) || r.Age() < 50*time.Second {
				t.Errorf("%v: %+v, age %v", c.value, r, r.Age())
			}
			// Whoever starts now gets the last good one, if the agent was asked to check.
			opt.Wait = time.Second
			late, err := follow(t.Context(), b.origin(), opt, b.clock)
			if c.err == ErrSource {
				if err != nil || late.Get().Value != "one" {
					t.Errorf("%v: a new one: %v", c.value, err)
				}
				late.Close()
			} else if !errors.Is(err, ErrDecode) {
				t.Errorf("%v: a new one: %v", c.value, err)
			}
			v.Close()
			v = b.follow(opt0(b, opt)) // in its place
			select {
			case <-changed:
				t.Error("it is said to be another")
			default:
			}
		}
		s.Close()
		v.Close()
	})
}

// opt0 is opt, once the value is good again.
func opt0(b *bubble, opt Options[string]) Options[string] {
	b.set("one", nil)
	time.Sleep(5 * time.Second)
	return opt
}

// TestMemory: an agent that is started while the source fails has the value from those
// who remember it, and those who start then have it from the agent, with its age.
func TestMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := b.serve(b.poll())
		v, err := follow(t.Context(), b.origin(), Options[string]{Beat: time.Minute, Logger: b.logger()}, b.clock)
		if err != nil {
			t.Fatal(err)
		}
		b.set(nil, errors.New("no store"))
		time.Sleep(time.Hour)
		s.Close()
		s = b.serve(b.poll())
		// Whoever asks need not wait for the beat of those who remember.
		at := time.Now()
		asked := 0
		for none := true; none && asked < 10; asked++ {
			var a answer
			if err := b.e.Request(t.Context(), message.Slot("main", 1), typeGet("v"), request{}, &a); err != nil {
				t.Fatal(err)
			}
			none = a.None
			time.Sleep(time.Millisecond)
		}
		if asked != 2 || time.Since(at) > 10*time.Millisecond {
			t.Errorf("it takes %d questions and %v until somebody remembers", asked, time.Since(at))
		}
		late := b.follow(Options[string]{})
		for _, r := range []Reading[string]{v.Get(), late.Get()} {
			if r.Value != "one" || !r.OK || r.Age() < 59*time.Minute || r.Age() > time.Hour+3*time.Second {
				t.Errorf("%+v, age %v", r, r.Age())
			}
		}
		time.Sleep(10 * time.Second)
		if err := v.Get().Err; !errors.Is(err, ErrSource) || errors.Is(err, ErrNone) {
			t.Error(err)
		}
		b.set("two", nil)
		time.Sleep(2 * time.Minute) // late is in v's place, and hears of it first
		if v.Get().Value != "two" || late.Get().Value != "two" || v.Get().Err != nil {
			t.Errorf("%+v", v.Get())
		}
		s.Close()
		v.Close()
		late.Close()
	})
}

// TestNobodyRemembers: where nobody does, nobody is asked too often.
func TestNobodyRemembers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.set(nil, errors.New("no store"))
		s := b.serve(b.poll())
		asked := 0
		b.e.Handle(typeGet("v"), func(ctx context.Context, m *message.Message) (any, error) {
			asked++
			return s.handle(ctx, m)
		})
		back := "back"
		v := b.follow(Options[string]{Fallback: &back, Beat: time.Minute})
		time.Sleep(time.Hour)
		synctest.Wait()
		if asked > 200 {
			t.Errorf("asked %d times in 60 beats", asked)
		}
		if r := v.Get(); r.OK || r.Value != "back" || !errors.Is(r.Err, ErrNone) || !errors.Is(r.Err, ErrSource) {
			t.Errorf("%+v", r)
		}
		s.Close()
		v.Close()
	})
}

// TestStart: Follow waits for a value, for no longer than it may, and says what is missing.
func TestStart(t *testing.T) {
	follow := func(b *bubble, ctx context.Context, opt Options[string]) (*Value[string], error) {
		opt.Logger = b.logger()
		return follow(ctx, b.origin(), opt, b.clock)
	}
	inBubble(t, func(t *testing.T, b *bubble) { // it comes late
		served := make(chan *Server, 1)
		go func() {
			time.Sleep(3 * time.Second)
			s := b.serve(b.poll())
			served <- s
		}()
		v, err := follow(b, t.Context(), Options[string]{})
		if err != nil || v.Get().Value != "one" || time.Since(b.began) > 6*time.Second {
			t.Errorf("%v after %v", err, time.Since(b.began))
		}
		v.Close()
		(<-served).Close()
	})
	inBubble(t, func(t *testing.T, b *bubble) { // nobody serves it
		_, err := follow(b, t.Context(), Options[string]{})
		if !errors.Is(err, ErrNone) || !errors.Is(err, message.ErrUnhandled) || time.Since(b.began) != DefaultWait {
			t.Errorf("%v after %v", err, time.Since(b.began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := follow(b, ctx, Options[string]{}); !errors.Is(err, ErrNone) || time.Since(b.began) != DefaultWait+time.Second {
			t.Errorf("%v after %v", err, time.Since(b.began))
		}
		back := "back"
		v, err := follow(b, t.Context(), Options[string]{Fallback: &back})
		if err != nil {
			t.Fatal(err)
		}
		if r := v.Get(); r.OK || r.Value != "back" || r.Version != "" || r.Age() != 0 || !errors.Is(r.Err, ErrAgent) {
			t.Errorf("%+v", r)
		}
		c := v.Changed()
		s := b.serve(b.poll())
		<-c
		if r := v.Get(); !r.OK || r.Value != "one" || r.Err != nil {
			t.Errorf("%+v", r)
		}
		v.Close()
		s.Close()
	})
	inBubble(t, func(t *testing.T, b *bubble) { // nobody answers
		let := make(chan struct{})
		b.e.Handle(typeGet("v"), func(context.Context, *message.Message) (any, error) { <-let; return nil, nil })
		_, err := follow(b, t.Context(), Options[string]{})
		if !errors.Is(err, ErrNone) || !errors.Is(err, context.DeadlineExceeded) || time.Since(b.began) != DefaultWait {
			t.Errorf("%v after %v", err, time.Since(b.began))
		}
		close(let)
	})
	inBubble(t, func(t *testing.T, b *bubble) { // there is nobody of that address
		_, err := Follow(t.Context(), From(b.e, message.Slot("agent", 1), "v"), Options[string]{})
		if !errors.Is(err, ErrNone) || !errors.Is(err, message.ErrAddress) || time.Since(b.began) != 0 {
			t.Errorf("%v after %v", err, time.Since(b.began))
		}
		_, err = Follow(t.Context(), From(b.e, message.All(), "v"), Options[string]{})
		if !errors.Is(err, ErrNone) || !errors.Is(err, message.ErrRefused) {
			t.Error(err)
		}
	})
	inBubble(t, func(t *testing.T, b *bubble) { // the endpoint has ended, or ends
		s := b.serve(b.poll())
		v := b.follow(Options[string]{})
		b.e.Close(errors.New("enough"))
		back := "back"
		if _, err := follow(b, t.Context(), Options[string]{Fallback: &back}); !errors.Is(err, message.ErrClosed) || time.Since(b.began) != 0 {
			t.Errorf("%v after %v", err, time.Since(b.began))
		}
		time.Sleep(5 * time.Second)
		if r := v.Get(); r.Value != "one" || !errors.Is(r.Err, message.ErrClosed) {
			t.Errorf("%+v", r)
		}
		v.wg.Wait() // it has ended by itself
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

// TestConfig: bad arguments.
func TestConfig(t *testing.T) {
	e := message.NewAlone("main")
	defer e.Close(nil)
	read := func(context.Context) (int, string, error) { return 1, "", nil }
	for i, try := range []func() error{
		func() error { _, err := Serve(nil, "v", Poll(1, read), nil); return err },
		func() error { _, err := Serve(e, "", Poll(1, read), nil); return err },
		func() error { _, err := Serve(e, strings.Repeat("x", MaxName+1), Poll(1, read), nil); return err },
		func() error { _, err := Serve(e, "a\nb", Poll(1, read), nil); return err },
		func() error { _, err := Serve(e, "v", nil, nil); return err },
		func() error { _, err := Serve(e, "v", Poll(0, read), nil); return err },
		func() error { _, err := Serve(e, "v", JSON(File("")), nil); return err },
		func() error { _, err := Serve(e, "v", JSON(nil), nil); return err },
		func() error { _, err := Follow(t.Context(), nil, Options[int]{}); return err },
		func() error {
			_, err := Follow(t.Context(), From(nil, message.Parent(), "v"), Options[int]{})
			return err
		},
		func() error { _, err := Follow(t.Context(), From(e, message.Parent(), ""), Options[int]{}); return err },
		func() error {
			_, err := Follow(t.Context(), From(e, message.Parent(), "v"), Options[int]{Beat: -1})
			return err
		},
		func() error {
			_, err := Follow(t.Context(), From(e, message.Parent(), "v"), Options[int]{Wait: -1})
			return err
		},
	} {
		if err := try(); !errors.Is(err, ErrConfig) {
			t.Errorf("%d: %v", i, err)
		}
	}
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

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
