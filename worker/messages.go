package worker

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
)

// ErrNoParent is why messages fail when every parent is gone. The error is also a
// message.ErrClosed.
var ErrNoParent = errors.New("worker: the parent is gone")

// Messages is this worker's place in the exchange of messages between the processes of
// the service. It gets messages from when it is ready, so that handlers are best set
// before that, and may send from the start. When it drains it gets no more; what it has
// begun to handle is finished within the drain's time, and what it has not goes to its
// successor. Without a parent it is alone: the only slot of the group "main".
func (w *Worker) Messages() *message.Endpoint { return w.post }

// closeMessages ends the exchange.
func (w *Worker) closeMessages() {
	w.mail.end()
	w.post.Close(nil)
	if !w.mute {
		w.post.Wait()
	}
}

// outgoing are messages on their way to the channel. It is bounded by the endpoint's
// window, and the parent's.
type outgoing struct {
	conn  *link
	mu    sync.Mutex
	list  []letter
	busy  bool // speak has taken some, and is sending them
	ended bool
	more  chan struct{} // cap 1
}

type letter struct {
	v     any
	files []*os.File
	out   chan struct{} // closed when it is out; may be nil
}

// put sends at once what the channel takes at once, and leaves the rest to speak.
func (o *outgoing) put(l letter) (out <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || !o.busy && len(o.list) == 0 && o.conn.get().TrySend(l.v, l.files...) == nil {
		return nil
	}
	l.out = make(chan struct{})
	o.list = append(o.list, l)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return l.out
}

// end drops what nobody sends any more.
func (o *outgoing) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, l := range o.list {
		close(l.out)
	}
	o.list = nil
}

// Message, Done and Again are message.Link.
func (o *outgoing) Message(m wire.Message, files []*os.File) { o.put(letter{v: m, files: files}) }
func (o *outgoing) Done(r wire.Result) (out <-chan struct{}) { return o.put(letter{v: r}) }
func (o *outgoing) Again(n int)                              { o.put(letter{v: wire.Again{Cmd: wire.CmdAgain, N: n}}) }

// sendMail sends what there is. An error that is not the channel's is the message's, and
// its result.
func (w *Worker) sendMail() {
	w.mail.mu.Lock()
	list := w.mail.list
	w.mail.list, w.mail.busy = nil, true
	w.mail.mu.Unlock()
	defer func() {
		w.mail.mu.Lock()
		w.mail.busy = false
		w.mail.mu.Unlock()
	}()
	for _, l := range list {
		err := w.conn.get().Send(l.v, l.files...)
		for tries := 0; errors.Is(err, syscall.ETOOMANYREFS) && tries < 100; tries++ {
			time.Sleep(10 * time.Millisecond) // the user has too many on their way to somebody
			err = w.conn.get().Send(l.v, l.files...)
		}
		close(l.out)
		if m, ok := l.v.(wire.Message); ok && err != nil && !wire.Gone(err) && !errors.Is(err, wire.ErrBroken) {
			w.post.Result(wire.Result{N: m.N, Why: wire.WhyRefused, Text: err.Error()})
		}
	}
}

// endMessages lets what is being handled come to its end, in the drain's time, and gives
// the rest back.
func (w *Worker) endMessages() {
	w.post.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), w.drainTimeout())
	defer cancel()
	if err := w.post.Quiet(ctx); err != nil {
		w.mute = true
		w.log.Error("messages are still being handled at the end of the drain: exiting without their results", "handlers", w.post.Busy())
	}
}
