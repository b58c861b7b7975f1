package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/handover-go/handover/internal/wire"
)

// Handler does what a message asks for, and returns the answer: any value that
// json.Marshal takes, nil for none. Its error goes back to the sender as text. Messages
// of one sender are handled one after the other, those of several side by side: what
// takes long holds up only its sender. ctx ends when the process has no more time for
// it.
type Handler func(ctx context.Context, m *Message) (answer any, err error)

// Link is how an endpoint's messages leave the process. It is for the packages of this
// module. Its methods are called with the endpoint's lock held: they must neither wait
// nor call the endpoint.
type Link interface {
	Message(m wire.Message, files []*os.File)
	// Done returns a channel that is closed when the result can't be lost any more by
	// this process's death; nil if it can't already.
	Done(r wire.Result) (out <-chan struct{})
	Again(n int)
}

// Endpoint is a process's place in the exchange of messages. Its methods may be called
// from any goroutine.
type Endpoint struct {
	link   Link
	ctx    context.Context // of the handlers
	cancel context.CancelFunc
	turn   chan struct{} // has room for one: whoever sends next

	mu       sync.Mutex
	handlers map[string]Handler
	last     int           // number of the last message that was sent
	sent     map[int]*Sent // under way
	bytes    int           // of their data
	files    int           // with them
	room     chan struct{} // closed when something of that has become less
	lanes    map[wire.Sender]*lane
	done     []int // numbers of the last that were handled
	forgot   int   // the highest of those before
	busy     int   // handlers that run
	quiet    chan struct{}
	stopped  bool // no handler begins any more
	closed   error
	wg       sync.WaitGroup
}

// lane is what waits of one sender's messages.
type lane struct {
	queue   []received
	running int // the number of the message that is being handled; 0: none yet
}

type received struct {
	n int
	m Message
}

// remembered is how many of those that were handled are remembered, for a parent that
// may have missed it.
const remembered = 256

// New returns an endpoint on a link.
func New(link Link) *Endpoint {
	e := &Endpoint{
		link: link, turn: make(chan struct{}, 1), handlers: map[string]Handler{}, sent: map[int]*Sent{},
		room: make(chan struct{}), lanes: map[wire.Sender]*lane{}, quiet: make(chan struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Handle says what is to be done with messages of a type; nil takes it back. A worker
// gets messages from when it is ready, so that handlers are best set before.
func (e *Endpoint) Handle(typ string, h Handler) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h == nil {
		delete(e.handlers, typ)
		return
	}
	e.handlers[typ] = h
}

// Send sends data to whoever is meant, and waits until all of them have handled it. The
// error is a *DeliveryError, ErrClosed, ErrWindow, or ctx's, which ends the wait and not
// the message. For the files see Post.
func (e *Endpoint) Send(ctx context.Context, to Address, typ string, data any, files ...*os.File) error {
	s, err := e.Post(ctx, to, typ, data, files...)
	if err != nil {
		return err
	}
	_, err = s.Wait(ctx)
	return err
}

// Request is Send to one receiver, whose handler's answer is read into answer as
// json.Unmarshal does, unless that is nil.
func (e *Endpoint) Request(ctx context.Context, to Address, typ string, data, answer any, files ...*os.File) error {
	if to.several() {
		return refused(to, typ, errors.New("a request is to one, not to several"))
	}
	s, err := e.Post(ctx, to, typ, data, files...)
	if err != nil {
		return err
	}
	raw, err := s.Wait(ctx)
	if err != nil || answer == nil {
		return err
	}
	if len(raw) == 0 {
		raw = json.RawMessage("null")
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("message %q to %v: the answer: %w", typ, to, err)
	}
	return nil
}

// Post is Send without the wait for the result, which the Sent tells. It waits while
// Window messages are under way. They leave in the order in which Post was called.
//
// The files go along. They are closed here once the message was handled, and must not be
// closed before; if it was not, they are the caller's again, open as they were. Whoever
// stops waiting for the result, by ctx, gives them up.
func (e *Endpoint) Post(ctx context.Context, to Address, typ string, data any, files ...*os.File) (*Sent, error) {
	raw, err := marshal(data)
	if err == nil {
		err = to.validate()
	}
	switch {
	case err != nil:
	case typ == "":
		err = errors.New("it has no type")
	case len(typ) > wire.MessageTypeSize:
		err = fmt.Errorf("its type has %d bytes, the most is %d", len(typ), wire.MessageTypeSize)
	case len(files) > MaxFiles:
		err = fmt.Errorf("%d files, the most is %d", len(files), MaxFiles)
	}
	for i, f := range files {
		if err == nil && f == nil {
			err = fmt.Errorf("file %d is nil", i)
		}
	}
	if err != nil {
		return nil, refused(to, typ, err)
	}
	full := func() error {
		return fmt.Errorf("%w: %w", ErrWindow, context.Cause(ctx))
	}
	select {
	case e.turn <- struct{}{}: // also if ctx has ended: there may be room
	default:
		select {
		case e.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, full()
		}
	}
	defer func() { <-e.turn }()
	for {
		s, room, err := e.post(to, typ, raw, files)
		if s != nil || err != nil {
			return s, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return nil, full()
		}
	}
}

// post sends, or returns a channel that is closed when it may be tried again.
func (e *Endpoint) post(to Address, typ string, data json.RawMessage, files []*os.File) (*Sent, <-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed != nil {
		return nil, nil, e.closed
	}
	if n := len(e.sent); n > 0 && (n == Window || e.bytes+len(data) > WindowBytes || e.files+len(files) > Window) {
		return nil, e.room, nil
	}
	e.last++
	s := &Sent{to: to, typ: typ, size: len(data), files: files, done: make(chan struct{})}
	e.sent[e.last] = s
	e.bytes += s.size
	e.files += len(files)
	e.link.Message(wire.Message{Cmd: wire.CmdMessage, N: e.last, To: to.a, Type: typ, Data: data, Files: len(files)}, files)
	return s, nil, nil
}

// Sent is a message that is under way, or was.
type Sent struct {
	to     Address
	typ    string
	size   int
	files  []*os.File
	done   chan struct{} // closed when it is known what became of it
	mu     sync.Mutex
	left   bool // nobody waits any more
	known  bool
	answer json.RawMessage
	err    error
}

// Done is closed when it is known what became of the message.
func (s *Sent) Done() <-chan struct{} { return s.done }

// Wait waits until it is known what became of the message, and returns the handler's
// answer; of a message to several it is null. Errors are those of Endpoint.Send.
func (s *Sent) Wait(ctx context.Context) (json.RawMessage, error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.known {
			s.left = true
			return nil, fmt.Errorf("message %q to %v: no result yet: %w", s.typ, s.to, context.Cause(ctx))
		}
	}
	return s.answer, s.err
}

// settle notes the result.
func (s *Sent) settle(answer json.RawMessage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.answer, s.err = true, answer, err
	if err == nil || s.left {
		for _, f := range s.files {
			f.Close()
		}
	}
	close(s.done)
}

func refused(to Address, typ string, err error) error {
	return &DeliveryError{To: to, Type: typ, Reason: ErrRefused, Text: err.Error()}
}

// marshal is data as JSON, within the bounds.
func marshal(data any) (json.RawMessage, error) {
	if data == nil {
		return nil, nil
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxData {
		return nil, fmt.Errorf("its data has %d bytes, the most is %d", len(raw), MaxData)
	}
	return raw, nil
}
