package drain

import (
	"bytes"

	"github.com/handover-go/handover/internal/moving"
)

// held knows what an http.Server has read of a connection's next request. A
// connection may move only as long as this is known: bytes that the server has, and
// nobody else, are lost with the move.
//
// It is known of a new connection: nothing. Of one that has served, only the read tells
// that follows its becoming idle. net/http sets one read deadline, and then waits for
// four bytes, if it holds less, in a buffer of 4096: what it does not offer, it holds,
// and that are the last bytes that were read. If it holds four or more there is no such
// read, but another deadline. From there on, all that is read belongs to the next
// request, until its header ends.
//
// Whatever does not look like that, as with another Go version, is not known.
type held struct {
	known     bool
	bytes     []byte  // if known
	tail      [3]byte // the last that was read
	idle      bool    // and nothing has been read, or asked for, since
	deadlines int     // set since then
	never     bool    // somebody else has the connection
}

// bufferSize is net/http's, for what it reads from a connection.
const bufferSize = 4096

// became idle: the last answer has been sent.
func (h *held) becameIdle() {
	h.forget()
	h.idle, h.deadlines = true, 0
}

// forget: a request is being answered.
func (h *held) forget() { h.known, h.bytes, h.idle = false, nil, false }

// deadlineSet: the server has set a read deadline.
func (h *held) deadlineSet() { h.deadlines++ }

// asked: the server wants to read that many bytes.
func (h *held) asked(room int) {
	if !h.idle {
		return
	}
	h.idle = false
	n := bufferSize - room
	if h.never || h.deadlines != 1 || n < 0 || n > len(h.tail) {
		return
	}
	h.known = true
	if n > 0 {
		h.bytes = bytes.Clone(h.tail[len(h.tail)-n:])
	}
}

// got: the server has read b.
func (h *held) got(b []byte) {
	if n := len(b); n < len(h.tail) {
		copy(h.tail[:], h.tail[n:])
		copy(h.tail[len(h.tail)-n:], b)
	} else {
		copy(h.tail[:], b[n-len(h.tail):])
	}
	if !h.known {
		return
	}
	all := b
	if len(h.bytes) > 0 {
		all = append(h.bytes, b...)
	}
	if bytes.HasPrefix(all, []byte(preface1)) {
		h.never = true // from here on it is HTTP/2
	}
	if h.never || len(all) > moving.MaxHeld || headerEnds(all) {
		h.forget()
	} else {
		h.bytes = append(h.bytes, b...)
	}
}

// headerEnds tells whether there is an empty line, after which a request may be served.
func headerEnds(b []byte) bool {
	return bytes.Contains(b, []byte("\n\r\n")) || bytes.Contains(b, []byte("\n\n"))
}
