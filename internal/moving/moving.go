// Package moving passes live connections from one process to another: a queue of
// messages, each one connection's descriptor and what was read from it already.
//
// The queue is a pair of sockets (SOCK_SEQPACKET, unix(7)). Its holder, who neither
// gives nor takes, keeps both ends open, so that what is queued outlives givers and
// takers; the kernel hands each message to one taker.
//
// # Format
//
// A message is a header, at most [MaxHeld] bytes, and a descriptor (SCM_RIGHTS), that of
// the connection. The header:
//
//	0    the kind of connection: 'h' HTTP/1, 's' a stream, whose server gives it a state
//	1    version, 1
//	2    the header's length, 8: what a later version adds to it is skipped
//	3    flags, see below; others are skipped
//	4-7  a number, big endian
//
// Of a connection of HTTP/1, the bytes are those that were read of its next request, the
// flag 1 says that its last request was a POST, and the number is how long it may stay idle
// from now on, in milliseconds, 0: for ever.
//
// Of a stream, the bytes are its state, and the number is the length of that. A state that
// does not fit is in a second descriptor, a memfd_create(2) file, which the flag 1 says.
//
// Whoever takes connections leaves those of another kind alone, also of one that it does
// not know, as long as the first three bytes make sense: who has given one away takes it
// back when nobody else does. The processes of a version before there were streams do not
// look first. They close one that they get, and never take it for HTTP; it takes the same
// socket to have been served in both ways to come to that.
package moving

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// MaxHeld is how many bytes of a next request can go with a connection, and up to how many
// bytes a state goes in the message.
const MaxHeld = 4096

// MaxState is how many bytes of state can go with a stream. The queue holds three of them
// or so, and each of its messages: the memory is that of whoever has sent it.
const MaxState = 1 << 20

const (
	version   = 1
	headerLen = 8
	maxHeader = 255

	flagPost = 1 // HTTP
	flagFile = 1 // Stream: the state is in a file
)

// A Kind is what a connection is served by.
type Kind byte

const (
	HTTP    Kind = 'h'
	Stream  Kind = 's'
	unknown Kind = 0
)

// kindOf is the kind of a message of n bytes, by its first ones. It is unknown if there is
// no sense in it, and whoever takes it finds that out; that of a later version is not.
func kindOf(b []byte, n int) Kind {
	if len(b) < headerLen || b[0] == 0 || b[1] == 0 || b[2] < headerLen || int(b[2]) > n {
		return unknown
	}
	return Kind(b[0])
}

var (
	// ErrFull: nothing more fits into the queue now, or this user has as many
	// descriptors on their way as it may (ETOOMANYREFS, unix(7)).
	ErrFull = errors.New("moving: the queue is full")
	// ErrMessage is wrapped by errors about a message that can't be understood.
	ErrMessage = errors.New("moving: not a connection")
	// ErrKind: the next connection is of another kind, and stays in the queue.
	ErrKind = errors.New("moving: a connection of another kind")
	// ErrUnsupported: connections move on Linux only.
	ErrUnsupported = fmt.Errorf("moving: connections can't move on this system: %w", errors.ErrUnsupported)
)

// Message is what goes with a connection.
type Message struct {
	// Kind is whose it is; the zero value stands for HTTP.
	Kind Kind
	// Idle is how long the connection may go on waiting for a request, 0 for ever.
	Idle time.Duration
	// Post: its last request was a POST, after which stray line ends are forgiven
	// (RFC 9112, section 2.2).
	Post bool
	// Held are the bytes of the next request that were read, at most MaxHeld.
	Held []byte
	// State is a stream's, at most MaxState bytes.
	State []byte
}

// check tells whether m can be sent.
func (m Message) check() error {
	if len(m.Held) > MaxHeld {
		return fmt.Errorf("%w: %d bytes read, at most %d can be", ErrMessage, len(m.Held), MaxHeld)
	}
	if len(m.State) > MaxState {
		return fmt.Errorf("%w: %d bytes of state, at most %d can be", ErrMessage, len(m.State), MaxState)
	}
	return nil
}

// inFile tells whether the state goes in a file of its own.
func (m Message) inFile() bool { return m.Kind == Stream && len(m.State) > MaxHeld }

// encode writes m. Times are rounded up, so that they don't become for ever.
func encode(b []byte, m Message) []byte {
	if m.Kind == Stream {
		var flags byte
		state := m.State
		if m.inFile() {
			flags, state = flagFile, nil
		}
		b = append(b, byte(Stream), version, headerLen, flags)
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.State)))
		return append(b, state...)
	}
	ms := min((m.Idle+time.Millisecond-1)/time.Millisecond, math.MaxUint32)
	var flags byte
	if m.Post {
		flags |= flagPost
	}
	b = append(b, byte(HTTP), version, headerLen, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(max(ms, 0)))
	return append(b, m.Held...)
}

// decode reads what encode, or that of a later version, has written. Held and State are a
// part of b. If the state is in a file, file is its size.
func decode(b []byte) (m Message, file int, err error) {
	kind := kindOf(b, len(b))
	if kind != HTTP && kind != Stream {
		return Message{}, 0, fmt.Errorf("%w: no header: %.20q", ErrMessage, b)
	}
	flags, number, rest := b[3], binary.BigEndian.Uint32(b[4:]), b[b[2]:]
	switch {
	case len(rest) > MaxHeld:
		return Message{}, 0, fmt.Errorf("%w: %d bytes read, at most %d can be", ErrMessage, len(rest), MaxHeld)
	case kind == HTTP:
		return Message{Kind: HTTP, Idle: time.Duration(number) * time.Millisecond, Post: flags&flagPost != 0, Held: rest}, 0, nil
	case number > MaxState:
		return Message{}, 0, fmt.Errorf("%w: %d bytes of state, at most %d can be", ErrMessage, number, MaxState)
	case flags&flagFile != 0 && len(rest) == 0:
		return Message{Kind: Stream}, int(number), nil
	case flags&flagFile != 0 || int(number) != len(rest):
		return Message{}, 0, fmt.Errorf("%w: a state of %d bytes, and %d in the message", ErrMessage, number, len(rest))
	}
	return Message{Kind: Stream, State: rest}, 0, nil
}
