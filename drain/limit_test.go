package drain

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// At the limit nothing is accepted, and below it accepting goes on.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	d := serve(t, &http.Server{Handler: newSite()}, ln, Config{MaxConns: 2})
	ask := func(c *client) { t.Helper(); c.get("/"); c.expect("hello", false) }
	one, two := dial(t, ln.Addr()), dial(t, ln.Addr())
	ask(one)
	ask(two)
	three, four := dial(t, ln.Addr()), dial(t, ln.Addr())
	three.get("/")
	four.get("/")
	until(t, "it is said", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return !d.crowdedAt.IsZero() })
	for range 20 {
		ask(one)
		ask(two)
	}
	if n := d.Served(); n != 2 {
		t.Errorf("%d were accepted", n)
	}
	one.Close()
	three.expect("hello", false)
	if open, _ := d.Active(); open != 2 || d.Served() != 3 {
		t.Errorf("%d are open, %d were accepted", open, d.Served())
	}
	three.Close()
	four.expect("hello", false)
	four.Close()
	two.Close()
	until(t, "all are gone", func() bool { open, _ := d.Active(); return open == 0 })
	ask(dial(t, ln.Addr()))
}

// A drain begins at the limit, too; one without a successor accepts what waits, whatever the
// limit: nobody else does.
func TestMaxConnsDrain(t *testing.T) {
	t.Parallel()
	for _, last := range []bool{false, true} {
		ln := listen(t, "tcp")
		d := serve(t, &http.Server{Handler: newSite()}, ln, Config{MaxConns: 1, LameDuck: 10 * time.Millisecond})
		one := dial(t, ln.Addr())
		one.get("/")
		one.expect("hello", false)
		two, three := dial(t, ln.Addr()), dial(t, ln.Addr())
		two.get("/")
		three.get("/")
		until(t, "it is said", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return !d.crowdedAt.IsZero() })
		if last {
			d.DrainQueue(time.Minute)
			two.expect("hello", true)
			three.expect("hello", true)
		} else {
			d.Drain(time.Minute)
		}
		<-d.Done()
		if want := map[bool]int{false: 1, true: 3}[last]; d.Served() != want {
			t.Errorf("last %t: %d were accepted, want %d", last, d.Served(), want)
		}
	}
}

func TestMaxConnsNegative(t *testing.T) {
	t.Parallel()
	if err := (Config{MaxConns: -1}).Validate(); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}

// It is said once a minute.
func TestMaxConnsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, _ := fake(t, Config{MaxConns: 1})
		said := func() (at time.Time) { d.sayCrowded(); d.mu.Lock(); defer d.mu.Unlock(); return d.crowdedAt }
		first := said()
		time.Sleep(crowdedTime - 1)
		if again := said(); again != first {
			t.Error("said twice in a minute")
		}
		time.Sleep(time.Nanosecond)
		if again := said(); again == first {
			t.Error("not said again")
		}
	})
}
