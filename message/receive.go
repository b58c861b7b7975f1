package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// This file is the side of an endpoint that the link calls. It is for the packages of
// this module.

// Result takes in what became of a message that was sent from here.
func (e *Endpoint) Result(r wire.Result) {
	e.mu.Lock()
	s := e.sent[r.N]
	if s == nil {
		e.mu.Unlock()
		return // said twice, by two parents
	}
	e.forget(r.N, s)
	e.mu.Unlock()
	s.settle(r.Data, failure(s.to, s.typ, r))
}

// forget makes room.
func (e *Endpoint) forget(n int, s *Sent) {
	delete(e.sent, n)
	e.bytes -= s.size
	e.files -= len(s.files)
	close(e.room)
	e.room = make(chan struct{})
}

// Receive takes in a message, and owns its files. It does not wait.
func (e *Endpoint) Receive(m wire.Message, files []*os.File) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		closeAll(files)
		e.link.Again(m.N)
		return
	}
	from := Sender{Group: m.From.Group, Slot: m.From.Slot, ID: m.From.ID, Generation: m.From.Generation}
	l := e.lanes[m.From]
	if l == nil {
		l = &lane{}
		e.lanes[m.From] = l
		defer e.begin(m.From, l)
	}
	l.queue = append(l.queue, received{n: m.N, m: Message{Type: m.Type, From: from, Data: m.Data, Files: files}})
}

// begin starts the goroutine that handles what is in a lane, which is there as long as
// the lane.
func (e *Endpoint) begin(from wire.Sender, l *lane) {
	e.busy++
	e.wg.Go(func() { e.run(from, l) })
}

// run handles what is in a lane.
func (e *Endpoint) run(from wire.Sender, l *lane) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(l.queue) > 0 { // Stop empties it
		r := l.queue[0]
		l.queue = l.queue[1:]
		l.running = r.n
		h := e.handlers[r.m.Type]
		e.mu.Unlock()
		e.handle(from, l, h, r)
		e.mu.Lock()
	}
	delete(e.lanes, from)
	if e.busy--; e.busy == 0 {
		close(e.quiet)
		e.quiet = make(chan struct{})
	}
}

// handle calls a handler. Whatever that does ends here; if it is the goroutine's end
// (runtime.Goexit, as by testing.T.FailNow), another one goes on with the lane.
func (e *Endpoint) handle(from wire.Sender, l *lane, h Handler, r received) {
	result, back := failed("it ended its goroutine"), false
	defer func() {
		if p := recover(); p != nil {
			result, back = failed(fmt.Sprintf("panic: %v\n%s", p, debug.Stack())), true
		}
		e.finish(l, r.n, result)
		if !back {
			e.wg.Go(func() { e.run(from, l) })
			e.mu.Lock() // which run releases
		}
	}()
	result = call(e.ctx, h, &r.m)
	back = true
}

// call is the result of a handler that returns.
func call(ctx context.Context, h Handler, m *Message) wire.Result {
	if h == nil {
		closeAll(m.Files)
		return wire.Result{Why: wire.WhyUnhandled}
	}
	answer, err := h(ctx, m)
	var data json.RawMessage
	if err == nil {
		data, err = marshal(answer)
	}
	if err != nil {
		return failed(err.Error())
	}
	return wire.Result{Data: data}
}

func failed(text string) wire.Result {
	return wire.Result{Why: wire.WhyHandler, Text: text[:min(len(text), maxText)]}
}

// finish says what became of a message. If this process dies, others have to know that it
// has not begun with the next one before it was done with this: so it waits until that
// can't be lost.
func (e *Endpoint) finish(l *lane, n int, result wire.Result) {
	result.Cmd, result.N = wire.CmdDone, n
	e.mu.Lock()
	l.running = 0
	if e.done = append(e.done, n); len(e.done) > remembered {
		e.forgot = max(e.forgot, e.done[0])
		e.done = e.done[1:]
	}
	out := e.link.Done(result)
	e.mu.Unlock()
	if out != nil {
		<-out
	}
}

// maxText is how many bytes of what a handler says about its failure go back.
const maxText = 16 << 10

// Stop lets no handler begin any more, and gives back what waits for one.
func (e *Endpoint) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	for _, l := range e.lanes {
		for _, r := range l.queue {
			closeAll(r.m.Files)
			e.link.Again(r.n)
		}
		l.queue = nil
	}
}

// Unstop takes Stop back.
func (e *Endpoint) Unstop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = false
}

// Quiet waits until no handler runs, or ctx ends.
func (e *Endpoint) Quiet(ctx context.Context) error {
	for {
		e.mu.Lock()
		busy, quiet := e.busy, e.quiet
		e.mu.Unlock()
		if busy == 0 {
			return nil
		}
		select {
		case <-quiet:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Busy is how many handlers run.
func (e *Endpoint) Busy() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.busy
}

// Close ends the endpoint: what is under way fails with ErrClosed and why, and the
// contexts of handlers that still run end. It does not wait for them.
func (e *Endpoint) Close(why error) {
	e.Stop()
	e.mu.Lock()
	if e.closed == nil {
		e.closed = ErrClosed
		if why != nil {
			e.closed = fmt.Errorf("%w: %w", ErrClosed, why)
		}
	}
	sent := e.sent
	e.sent, e.bytes, e.files = map[int]*Sent{}, 0, 0
	close(e.room)
	e.room = make(chan struct{})
	err := e.closed
	e.mu.Unlock()
	e.cancel()
	for _, s := range sent {
		s.settle(nil, err)
	}
}

// Wait waits until no handler runs any more and none will, after Close.
func (e *Endpoint) Wait() { e.wg.Wait() }

// ErrAlone is why an endpoint without a parent is closed.
var ErrAlone = errors.New("this process has no parent, and hence nobody to talk to")

// Mail is what there is to say to a parent that may have missed something. The number of
// its question is the caller's to add.
func (e *Endpoint) Mail() wire.Mail {
	e.mu.Lock()
	defer e.mu.Unlock()
	mail := wire.Mail{Cmd: wire.CmdMail, Sent: slices.Sorted(maps.Keys(e.sent)), Done: slices.Clone(e.done), Forgot: e.forgot}
	for _, l := range e.lanes {
		if l.running != 0 {
			mail.Have = append(mail.Have, l.running)
		}
		for _, r := range l.queue {
			mail.Have = append(mail.Have, r.n)
		}
	}
	slices.Sort(mail.Have)
	return mail
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
