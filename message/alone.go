package message

import (
	"os"
	"sync"

	"github.com/handover-go/handover/internal/wire"
)

// alone is the link of a process without a parent, who is the only slot of the only
// group: what it sends comes back to it.
type alone struct {
	e     *Endpoint
	group string

	mu    sync.Mutex
	queue []func()
	busy  bool
	last  int
	sent  map[int]int // the sender's numbers, by the receiver's
}

// NewAlone returns the endpoint of a process that is slot 1 of a group and has no
// parent. Messages to it are handled; there is nobody else.
func NewAlone(group string) *Endpoint {
	a := &alone{group: group, sent: map[int]int{}}
	a.e = New(a)
	return a.e
}

// later runs fn when the endpoint's lock is free, and in order.
func (a *alone) later(fn func()) {
	a.queue = append(a.queue, fn)
	if a.busy {
		return
	}
	a.busy = true
	a.e.wg.Go(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for len(a.queue) > 0 {
			fn := a.queue[0]
			a.queue = a.queue[1:]
			a.mu.Unlock()
			fn()
			a.mu.Lock()
		}
		a.busy = false
	})
}

// Message gives a message to this endpoint.
func (a *alone) Message(m wire.Message, files []*os.File) {
	a.mu.Lock()
	defer a.mu.Unlock()
	result := func(r wire.Result) { a.later(func() { a.e.Result(r) }) }
	switch m.To.To {
	case wire.ToSlot, wire.ToGroup, wire.ToAny:
		if m.To.Group != a.group || m.To.To == wire.ToSlot && m.To.Slot != 1 {
			result(wire.Result{N: m.N, Why: wire.WhyAddress})
			return
		}
	case wire.ToParent:
		result(wire.Result{N: m.N, Why: wire.WhyAddress, Text: ErrAlone.Error()})
		return
	}
	copies, err := duplicates(files)
	if err != nil {
		result(wire.Result{N: m.N, Why: wire.WhyRefused, Text: err.Error()})
		return
	}
	a.last++
	a.sent[a.last] = m.N
	m.N, m.From = a.last, wire.Sender{Group: a.group, Slot: 1, ID: 1, Generation: 1}
	a.later(func() { a.e.Receive(m, copies) })
}

// Done is the result for the sender.
func (a *alone) Done(r wire.Result) (out <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.sent[r.N]
	delete(a.sent, r.N)
	r.N = n
	a.later(func() { a.e.Result(r) })
	return nil
}

// Again: nobody else will handle it.
func (a *alone) Again(n int) { a.Done(wire.Result{N: n, Why: wire.WhyGone}) }
