package drain

import (
	"testing"
)

// What moves goes to who is below its limit, and when all are at it, to anyone.
func TestMaxConnsMoves(t *testing.T) {
	t.Parallel()
	const n, limit = 40, 5
	for range 5 { // of a sibling that is held up, some are taken
		if with := maxConnsMoves(t, n, limit); with <= limit+n/10 {
			return
		} else {
			t.Logf("%d connections are with who wants %d, and a sibling had room", with, limit)
		}
	}
	t.Error("and again and again")
}

// maxConnsMoves returns how many are with who wants few.
func maxConnsMoves(t *testing.T, n, limit int) (with int) {
	r := newRelay(t, "tcp")
	a := r.streams(tally(t, "a"))
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = dial(t, r.ln.Addr())
		clients[i].send("one\n")
		clients[i].says(`1 "one\n" a`)
	}
	r.conf.MaxConns = limit
	small := r.streams(tally(t, "small"))
	r.conf.MaxConns = n - limit
	large := r.streams(tally(t, "large"))
	for _, g := range []*running{small, large} {
		g.Move(Share) // without limits, each would get half of them
	}
	a.retire()
	a.drained(0, 0, 0)
	until(t, "all have come", func() bool { s, _ := small.Active(); l, _ := large.Active(); return s+l == n })
	with, _ = small.Active()
	// Now nobody has room: they stay open all the same.
	large.retire()
	large.drained(0, 0, 0)
	until(t, "all have come", func() bool { s, _ := small.Active(); return s == n })
	for i, c := range clients {
		c.send("two\n")
		c.says(`2 "two\n" small`)
		if i > 0 {
			c.Close()
		}
	}
	// It accepts again when there are fewer.
	next := dial(t, r.ln.Addr())
	next.send("one\n")
	next.says(`1 "one\n" small`)
	return with
}

// While a sibling that has room is slow, what is queued is left for it only so long.
func TestYield(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	r.conf.MaxConns = 1
	b := r.streams(tally(t, "b"))
	c := dial(t, r.ln.Addr())
	c.send("one\n")
	c.says(`1 "one\n" b`)
	var y yield
	if b.takesNext(&y) {
		t.Error("it takes what is not there")
	}
	b.Move(Stay)         // this test does what its receiver would
	queued := r.queued() // b accepts nothing
	b.role.Store(int32(Take))
	want := []yield{{1, 0}, {2, 1}, {2, 0}, {4, 3}}
	for _, w := range want {
		if !b.takesNext(&y) || y != w {
			t.Errorf("%+v, want %+v", y, w)
		}
	}
	for range 200 {
		b.takesNext(&y)
	}
	if y.batch != maxBatch {
		t.Errorf("%d at a time, want %d", y.batch, maxBatch)
	}
	c.Close()
	until(t, "there is room", func() bool { return b.takesNext(&y) && y == yield{} })
	queued.Close()
}

// A call of accept(2) that is under way when what has moved takes the last room ends.
func TestMaxConnsWhileAccepting(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	a := r.streams(tally(t, "a"))
	c := dial(t, r.ln.Addr())
	c.send("one\n")
	c.says(`1 "one\n" a`)
	r.conf.MaxConns = 1
	b := r.streams(tally(t, "b"))
	until(t, "it accepts", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.accepting == 1 })
	a.retire()
	a.drained(0, 0, 0)
	until(t, "it does not accept", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.accepting == 0 && len(b.conns) == 1 })
	next := dial(t, r.ln.Addr())
	next.send("one\n")
	c.send("two\n")
	c.says(`2 "two\n" b`)
	if b.Served() != 0 {
		t.Error("one too many was accepted")
	}
	c.Close()
	next.says(`1 "one\n" b`)
}
