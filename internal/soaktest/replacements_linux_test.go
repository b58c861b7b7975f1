package soaktest_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/shop"
	"github.com/handover-go/handover/workerset"
)

// replacer replaces workers.
type replacer struct {
	*shop.Shop
	t    *testing.T
	turn int // of the ways, the next
	lost []excuse
}

// ways are how a worker comes to be replaced.
var ways = []func(r *replacer){
	func(r *replacer) { r.kill(r.oldest()) },
	func(r *replacer) { r.asks("/fail") },  // drains, and ends
	func(r *replacer) { r.asks("/panic") }, // of a handler: the same
	func(r *replacer) { r.act(control.Wish{Verb: control.Restart, Worker: r.oldest().place()}) },
	func(r *replacer) { r.act(control.Wish{Verb: control.Drain, Worker: r.oldest().place()}) },
	func(r *replacer) { r.act(control.Wish{Verb: control.Restart}) },
	(*replacer).killAsked,
}

// TestReplacements has the workers of a service replaced again and again, in all ways.
func TestReplacements(t *testing.T) {
	n := amount(t, 2*len(ways), 10_000)
	const batch = 250 // of what one load remembers the failures
	r := &replacer{Shop: start(t), t: t}
	l := begin(t, r.Shop, light)
	for range 2 * len(ways) {
		r.next()
	}
	before := levelOver(t, r.Shop, r.next)
	first, began := r.started(), time.Now()
	requests, lost := 0, 0
	verdict := func() {
		res := end(t, l, r.lost...)
		requests, lost, r.lost = requests+res.Started, lost+res.Excused, nil
	}
	for i := 0; r.started()-first < n; i++ {
		if r.next(); t.Failed() {
			t.FailNow()
		}
		if i%batch == batch-1 {
			verdict()
			l = begin(t, r.Shop, light)
		}
	}
	done := r.started() - first
	t.Log(pace(done, "replacements", began))
	after := levelOver(t, r.Shop, r.next)
	verdict()
	t.Logf("%v, and then %v; %s; %d requests, %d lost with their workers", before, after, finds(done), requests, lost)
	if more := grown(before, after); more != nil {
		t.Errorf("it grows: %q", more)
	}
	r.Stop(true)
}

// next replaces a worker in the next way, and waits until all serve.
func (r *replacer) next() {
	r.t.Helper()
	ways[r.turn%len(ways)](r)
	r.turn++
}

// started is how many web workers the service has had.
func (r *replacer) started() (n int) {
	r.t.Helper()
	for _, w := range r.web() {
		n = max(n, w.ID)
	}
	return n
}

// served is a web worker.
type served workerset.Worker

func (w served) place() string { return fmt.Sprintf("%s/%d", w.Group, w.Slot) }

// web are the workers that serve clients.
func (r *replacer) web() (list []served) {
	r.t.Helper()
	for _, g := range r.Status().Groups {
		for _, w := range g.Workers {
			if g.Name == "web" && w.State == "serving" && !w.Stale {
				list = append(list, served(w))
			}
		}
	}
	return list
}

// oldest is the one of them that has served longest.
func (r *replacer) oldest() served {
	r.t.Helper()
	list := r.web()
	if len(list) == 0 {
		r.t.Fatal("nobody serves")
	}
	return slices.MinFunc(list, func(a, b served) int { return a.ID - b.ID })
}

// replaced waits until one of these is gone, and all serve.
func (r *replacer) replaced(was ...served) {
	r.t.Helper()
	limit := time.Now().Add(shop.Patience)
	for {
		now := r.web()
		if len(now) == 2 && slices.ContainsFunc(was, func(w served) bool {
			return !slices.ContainsFunc(now, func(n served) bool { return n.Pid == w.Pid })
		}) {
			return
		}
		if time.Now().After(limit) {
			r.t.Fatalf("none of %v is replaced: %+v", was, r.Status().Groups)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *replacer) kill(w served) {
	r.t.Helper()
	loss, err := r.Kill(w.Pid)
	if err != nil {
		r.t.Fatal(err)
	}
	r.lost = append(r.lost, loss.Excuse)
	r.replaced(w)
}

// act asks on the control socket.
func (r *replacer) act(w control.Wish) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), shop.Patience)
	defer cancel()
	if ev, err := r.Control.Act(ctx, w, func(control.Event) {}); err != nil || ev.Result != control.Done {
		r.t.Fatalf("%+v: %+v, %v", w, ev, err)
	}
}

// killAsked has the parent kill a worker. What that one has is known, since it stands still.
func (r *replacer) killAsked() {
	r.t.Helper()
	w := r.oldest()
	loss, err := r.Freeze(w.Pid)
	if err != nil {
		r.t.Fatal(err)
	}
	r.lost = append(r.lost, loss.Excuse)
	r.act(control.Wish{Verb: control.Kill, Worker: strconv.Itoa(w.Pid)}) // in whose place another one may drain
	r.replaced(w)
}

// asks asks for a failure of whoever answers.
func (r *replacer) asks(path string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), shop.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.Addr+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	was := r.web()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	// A handler that panics gives no answer, which would say whose it was.
	r.replaced(was...)
}
