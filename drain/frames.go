package drain

import "encoding/binary"

// This file is HTTP/2 as far as a drain has to understand it (RFC 9113): where frames
// begin and end, and which streams are open. It decides nothing and does no I/O.

// A frame is the header of one, and what of its payload matters (section 4.1).
type frame struct {
	kind, flags byte
	stream      uint32
	length      int
	data        [8]byte // the first bytes of the payload
}

// Kinds of frames (section 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameContinuation = 0x9
)

// Flags of frames.
const (
	flagAck        = 0x1 // of SETTINGS and PING
	flagEndStream  = 0x1 // of DATA and HEADERS
	flagEndHeaders = 0x4 // of HEADERS, PUSH_PROMISE and CONTINUATION
)

// frameHeader is the length of a frame's header, in bytes.
const frameHeader = 9

// frames follows what one side sends, in whatever pieces it comes. The zero value is at the
// beginning, behind the client's preface.
type frames struct {
	frame // the one that is under way, as far as it is known

	head   [frameHeader]byte
	have   int  // bytes of head
	left   int  // bytes of the payload that are to come
	opened bool // the first frame is complete, and was SETTINGS
	block  bool // a header block goes on: only CONTINUATION may follow (section 4.3)
	wrong  bool // it is not HTTP/2
}

// advance goes on to the end of a frame, or of b if that is earlier. It returns how many
// bytes that are, whether the frame's header is complete with them, and whether the frame is.
func (f *frames) advance(b []byte) (n int, begins, ends bool) {
	switch {
	case f.have == 0 && len(b) >= frameHeader: // most of the time
		n, f.have = frameHeader, frameHeader
		f.begin(b)
		begins = true
	case f.have < frameHeader:
		n = copy(f.head[f.have:], b)
		if f.have += n; f.have < frameHeader {
			return n, false, false
		}
		f.begin(f.head[:])
		begins = true
	}
	payload := b[n:min(len(b), n+f.left)]
	if at := f.length - f.left; at < len(f.data) {
		copy(f.data[at:], payload)
	}
	f.left -= len(payload)
	n += len(payload)
	if f.left > 0 {
		return n, begins, false
	}
	f.end()
	return n, begins, true
}

// begin reads a header that is complete.
func (f *frames) begin(head []byte) {
	f.frame = frame{
		kind: head[3], flags: head[4],
		length: int(head[0])<<16 | int(head[1])<<8 | int(head[2]),
		stream: binary.BigEndian.Uint32(head[5:]) &^ (1 << 31),
	}
	f.left = f.length
	if !f.opened && f.kind != frameSettings || f.block != (f.kind == frameContinuation) {
		f.wrong = true
	}
}

// end is the end of a frame.
func (f *frames) end() {
	f.have = 0
	f.opened = true
	switch f.kind {
	case frameHeaders, framePushPromise, frameContinuation:
		f.block = f.flags&flagEndHeaders == 0
	}
}

// skip goes on behind b.
func (f *frames) skip(b []byte) {
	for len(b) > 0 {
		n, _, _ := f.advance(b)
		b = b[n:]
	}
}

// clean tells whether another frame may be put in here: it is not inside a frame or a header
// block, and what has to come first has come (section 3.4).
func (f *frames) clean() bool { return f.have == 0 && f.opened && !f.block && !f.wrong }

// boundary returns after how many bytes of b another frame may be put in, or -1.
func (f *frames) boundary(b []byte) int {
	g := *f
	for at := 0; ; {
		if g.clean() {
			return at
		}
		if at == len(b) {
			return -1
		}
		n, _, _ := g.advance(b[at:])
		at += n
	}
}

// opens tells whether a client opens a stream with a frame, when newest was its last one.
func (f *frame) opens(newest uint32) bool {
	return f.kind == frameHeaders && f.stream&1 == 1 && f.stream > newest
}

// tells whether a frame, complete, changes what is known of streams or of a drain.
func (f *frame) tells(from side) bool {
	switch f.kind {
	case frameHeaders: // of an answer, they are only its beginning
		return from == fromClient || f.stream&1 == 0 || f.flags&flagEndStream != 0
	case frameData:
		return f.flags&flagEndStream != 0
	}
	return f.kind == frameRSTStream || f.kind == framePing || f.kind == frameGoAway
}

// isAck tells whether a frame is the answer to a PING with that payload.
func (f *frame) isAck(data [8]byte) bool {
	return f.kind == framePing && f.flags&flagAck != 0 && f.data == data
}

// lastStream is what a GOAWAY says that names no stream: all are served (section 6.8).
const lastStream = 1<<31 - 1

// appendGoAway appends a GOAWAY without an error.
func appendGoAway(b []byte, last uint32) []byte {
	b = append(b, 0, 0, 8, frameGoAway, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return binary.BigEndian.AppendUint32(b, 0)
}

// appendPing appends a PING.
func appendPing(b []byte, data [8]byte) []byte {
	return append(append(b, 0, 0, 8, framePing, 0, 0, 0, 0, 0), data[:]...)
}

// A side is one end of a connection.
type side byte

const (
	fromClient side = 1 << iota
	fromServer
	both = fromClient | fromServer
)

// streams are those of a connection that are open (section 5.1). The zero value has none.
type streams struct {
	open    []stream
	highest [2]uint32 // that were opened: by the server, by the client
	lost    bool      // there were too many to remember
}

type stream struct {
	id    uint32
	ended side // who will send no more
}

// maxStreams is how many are remembered. Servers allow a client far fewer at a time.
const maxStreams = 1 << 12

// last is the highest stream that the client has opened.
func (s *streams) last() uint32 { return s.highest[1] }

// none tells that every stream has ended on both sides.
func (s *streams) none() bool { return len(s.open) == 0 && !s.lost }

// begins notes that a frame's header was seen.
func (s *streams) begins(from side, f *frame) {
	who := f.stream & 1
	if f.kind != frameHeaders || f.stream <= s.highest[who] || (from == fromClient) != (who == 1) {
		return
	}
	s.highest[who] = f.stream
	if len(s.open) == maxStreams {
		s.lost = true
		return
	}
	st := stream{id: f.stream}
	if from == fromServer {
		st.ended = fromClient // a push: the client says nothing
	}
	s.open = append(s.open, st)
}

// ends notes that all of a frame was seen. It returns whether a stream has ended.
func (s *streams) ends(from side, f *frame) bool {
	var ended side
	switch {
	case f.kind == frameRSTStream:
		ended = both
	case (f.kind == frameData || f.kind == frameHeaders) && f.flags&flagEndStream != 0:
		ended = from
	default:
		return false
	}
	for i := len(s.open) - 1; i >= 0; i-- {
		if st := &s.open[i]; st.id == f.stream {
			if st.ended |= ended; st.ended != both {
				return false
			}
			*st = s.open[len(s.open)-1]
			s.open = s.open[:len(s.open)-1]
			return true
		}
	}
	return false
}
