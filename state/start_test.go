package state

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/message"
)

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
		time.Sleep(70 * time.Second) // a beat, and a tenth: the agent may have answered before it has looked
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
		if asked < 100 || asked > 200 { // at each beat, and when told that somebody may remember
			t.Errorf("asked %d times in 60 beats", asked)
		}
		if r := v.Get(); r.OK || r.Value != "back" || !errors.Is(r.Err, ErrNone) || !errors.Is(r.Err, ErrSource) {
			t.Errorf("%+v", r)
		}
		s.Close()
		v.Close()
	})
}

// TestOffers: what one remembers reaches the others through the agent at once. An agent
// that does not take it is not pressed.
func TestOffers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := b.serve(b.poll())
		v := b.follow(Options[string]{})
		b.set(nil, errors.New("no store"))
		s.Close()
		s = b.serve(b.poll())
		back := "back"
		local, err := follow(t.Context(), s, Options[string]{Fallback: &back, Beat: 24 * time.Hour, Wait: time.Hour}, b.clock)
		if err != nil {
			t.Fatal(err)
		}
		if r := local.Get(); r.Value != "one" || time.Since(b.began) > 5*time.Second {
			t.Errorf("%+v after %v", r, time.Since(b.began))
		}
		local.Close()
		s.Close()

		asked, offered := 0, 0
		b.e.Handle(typeGet("v"), func(_ context.Context, m *message.Message) (any, error) {
			var r request
			if err := m.Decode(&r); err != nil {
				return nil, err
			}
			if asked++; r.Offer != nil {
				offered++
			}
			return answer{None: true}, nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		if asked < 1500 || asked > 2100 || offered < 1500 {
			t.Errorf("asked %d times in 1800 beats, offered %d times", asked, offered)
		}
		v.Close()
	})
}

// TestNobodyFollows: who follows no more is told nothing.
func TestNobodyFollows(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := b.serve(b.poll())
		v := b.follow(Options[string]{})
		following := func() int {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.book.slots)
		}
		if n := following(); n != 1 {
			t.Errorf("%d slots", n)
		}
		v.Close()
		b.set("two", nil)
		time.Sleep(5 * time.Second)
		if n := following(); n != 0 {
			t.Errorf("%d slots", n)
		}
		v = b.follow(Options[string]{})
		b.set("three", nil)
		time.Sleep(5 * time.Second)
		if n := following(); n != 1 || v.Get().Value != "three" {
			t.Errorf("%d slots, %+v", n, v.Get())
		}
		v.Close()
		s.Close()
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
