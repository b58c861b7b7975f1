// Package message is how the processes of a service talk: any worker, or the parent,
// sends a JSON value, and open files with it, to another worker, to a group of them, to
// all, to one of several, or to the parent, and gets back what its handler answers.
//
//	w.Messages().Handle("price", func(ctx context.Context, m *message.Message) (any, error) {
//		return 12, nil
//	})
//
//	var price int
//	err := w.Messages().Request(ctx, message.Slot("agent", 1), "price", "apple", &price)
//
// A message is handled once, or comes back as a *DeliveryError: also if its receiver is
// replaced, dies, or if the parent is upgraded meanwhile. What waits for a worker that
// is being replaced goes to its successor. Messages of one sender to one slot are
// handled in the order in which they were sent, one after the other.
//
// Nothing is buffered without bounds: an endpoint has at most [Window] messages under
// way, and whoever sends more waits.
package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/handover-go/handover/internal/wire"
)

const (
	// Window is how many messages of one endpoint may be under way: sent, and their
	// result not known. It is also the bound of the files with them.
	Window = wire.MessageWindow
	// WindowBytes bounds their data, in bytes. One message may always be under way.
	WindowBytes = wire.MessageBytes
	// MaxData is the most data of a message, and of an answer, in bytes of JSON.
	MaxData = wire.MaxLine - 4096
	// MaxFiles is how many files go with a message.
	MaxFiles = wire.MessageFiles
)

// Reasons for a message that was not handled, or not well; use errors.Is on what Send,
// Request and Sent.Wait return.
var (
	// ErrHandler: its handler returned an error, or panicked.
	ErrHandler = errors.New("the handler failed")
	// ErrUnhandled: nobody there handles messages of that type.
	ErrUnhandled = errors.New("there is no handler for it")
	// ErrAddress: there is nobody of that address.
	ErrAddress = errors.New("there is nobody of that address")
	// ErrGone: whoever was to get it ends for good, and has not begun to handle it.
	ErrGone = errors.New("the receiver is gone, and has not handled it")
	// ErrLost: a process died that had it. It may or may not have been handled.
	ErrLost = errors.New("a process that had it has died: it may or may not have been handled")
	// ErrRefused: it is not as it has to be, and was not sent.
	ErrRefused = errors.New("it was refused")
	// ErrClosed: this endpoint has ended, or the parent is gone. Of a message that was
	// under way nothing is known.
	ErrClosed = errors.New("message: the endpoint has ended")
	// ErrWindow: ctx ended while Window messages, or files, or WindowBytes were under way.
	// The message was not sent. It comes with ctx's error.
	ErrWindow = errors.New("message: too much is under way")
)

// reasons says what the channel's words mean.
var reasons = map[wire.Why]error{
	wire.WhyHandler: ErrHandler, wire.WhyUnhandled: ErrUnhandled, wire.WhyAddress: ErrAddress,
	wire.WhyGone: ErrGone, wire.WhyLost: ErrLost, wire.WhyRefused: ErrRefused,
}

// DeliveryError says which message was not handled well, and why. It unwraps to one of
// the reasons above. Of a message to several it is the first that came to be known.
type DeliveryError struct {
	To     Address
	Type   string
	Reason error  // one of those above
	Text   string // more of it, such as the handler's error; may be empty
}

// Error says it.
func (e *DeliveryError) Error() string {
	s := fmt.Sprintf("message %q to %v: %v", e.Type, e.To, e.Reason)
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// Unwrap returns the reason.
func (e *DeliveryError) Unwrap() error { return e.Reason }

// failure is the error for a result, nil if it is good.
func failure(to Address, typ string, r wire.Result) error {
	if r.Why == "" {
		return nil
	}
	reason := reasons[r.Why]
	if reason == nil {
		reason = ErrLost
	}
	return &DeliveryError{To: to, Type: typ, Reason: reason, Text: r.Text}
}

// Address says who is to get a message. The zero value is nobody.
type Address struct{ a wire.Address }

// Parent is the parent process: handover.Config.Handlers.
func Parent() Address { return Address{wire.Address{To: wire.ToParent}} }

// Slot is the worker in a slot of a group, whichever it is by then: while it is being
// replaced, and until it is ready, messages wait for its successor.
func Slot(group string, slot int) Address {
	return Address{wire.Address{To: wire.ToSlot, Group: group, Slot: slot}}
}

// Group is every slot of a group, the sender's own included, except those whose workers
// are programs that know no messages.
func Group(name string) Address { return Address{wire.Address{To: wire.ToGroup, Group: name}} }

// Any is one slot of a group, in turn; one whose worker is ready, if there is one.
func Any(group string) Address { return Address{wire.Address{To: wire.ToAny, Group: group}} }

// All is Group for every group.
func All() Address { return Address{wire.Address{To: wire.ToAll}} }

// String is the address for people, such as "web/1".
func (a Address) String() string {
	switch a.a.To {
	case wire.ToParent:
		return "the parent"
	case wire.ToSlot:
		return fmt.Sprintf("%s/%d", a.a.Group, a.a.Slot)
	case wire.ToGroup:
		return "group " + a.a.Group
	case wire.ToAny:
		return "any of group " + a.a.Group
	case wire.ToAll:
		return "all"
	}
	return "nobody"
}

// maxGroup bounds the name of a group, in bytes: the line of a message has room for the
// most data, and not for any address.
const maxGroup = 256

// validate says what is wrong with an address.
func (a Address) validate() error {
	switch a.a.To {
	case wire.ToParent, wire.ToAll:
		return nil
	case wire.ToSlot:
		if a.a.Slot < 1 {
			return fmt.Errorf("slot %d: they count from 1", a.a.Slot)
		}
	case wire.ToGroup, wire.ToAny:
	default:
		return errors.New("it has no address")
	}
	if a.a.Group == "" {
		return errors.New("the address names no group")
	}
	if n := len(a.a.Group); n > maxGroup {
		return fmt.Errorf("the address's group has %d bytes, the most is %d", n, maxGroup)
	}
	return nil
}

// several: more than one may get it.
func (a Address) several() bool { return a.a.To == wire.ToGroup || a.a.To == wire.ToAll }

// Sender is who has sent a message. The zero value is the parent. Group and Slot are
// where to answer it; ID and Generation tell one incarnation from the next.
type Sender struct {
	Group      string
	Slot       int
	ID         int
	Generation int
}

// Address is that of the sender, or of its successor.
func (s Sender) Address() Address {
	if s.Group == "" {
		return Parent()
	}
	return Slot(s.Group, s.Slot)
}

// String is the sender for people.
func (s Sender) String() string { return s.Address().String() }

// Message is what a handler gets.
type Message struct {
	Type string
	From Sender
	Data json.RawMessage // any JSON value
	// Files came with it. They are the handler's to close: also if it returns an error.
	Files []*os.File
}

// Decode reads the data into v, as json.Unmarshal does.
func (m *Message) Decode(v any) error {
	if err := json.Unmarshal(m.Data, v); err != nil {
		return fmt.Errorf("message %q from %v: %w", m.Type, m.From, err)
	}
	return nil
}
