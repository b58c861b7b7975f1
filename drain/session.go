package drain

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// This file is how a connection of HTTP/2 is drained.
//
// net/http sends one GOAWAY, which names the last stream that it has seen. What the client
// has sent by then, and is not there yet, is not served; a client that can't send its
// request again has failed. So the session, by which all goes that the server reads and
// writes, sends two (RFC 9113, section 6.8): one that refuses nothing, and a PING. When the
// client has answered that, it has seen the GOAWAY and opens no stream any more, and what it
// has opened before is here, or will be in a moment. Then comes the GOAWAY that names the last
// one. The server knows nothing of that, and answers on.
//
// When no stream is open, the client closes the connection; if it does not, the session ends
// it: it sends the end of the stream, and reads what still comes, since the kernel throws
// away what the client has not read when a socket is closed that has something unread.

// A session is a connection of HTTP/2 in plaintext.
//
// The server reads in one goroutine and writes in another at a time, and a third one, leave,
// says goodbye. No one of them waits for another that reads or writes, except for its turn
// to write.
type session struct {
	c    *conn
	rw   io.ReadWriter                   // the connection itself, or TLS on it
	half interface{ CloseWrite() error } // of rw; may be nil

	in      frames // the reader's
	preface int    // bytes of it that are to come; the reader's

	writing sync.Mutex // held while something is written
	out     frames     // guarded by writing
	short   bool       // the same: not all was written of what was noted last

	newest atomic.Uint32 // the last stream that the client has begun to open; the reader's to set

	pending atomic.Pointer[[]byte] // to be written where a frame may be
	closing atomic.Bool            // nothing is written any more, and nothing that is read is served
	leaving atomic.Bool            // leave is running, and nobody else ends the connection

	mu      sync.Mutex // never held while something is read or written
	streams streams
	ping    [8]byte
	acked   bool
	away    bool // the server itself has sent a GOAWAY

	left bool          // leave was called; the Drainer's
	news chan struct{} // has room for one: something that leave waits for may have happened
	once sync.Once
	gone chan struct{} // closed when the connection is
}

// newSession is called before the server writes. Of the client's preface that many bytes are
// to come.
func newSession(c *conn, rw io.ReadWriter, preface int) *session {
	s := &session{c: c, rw: rw, preface: preface, news: make(chan struct{}, 1), gone: make(chan struct{})}
	s.half, _ = rw.(interface{ CloseWrite() error })
	return s
}

// over notes that the connection is gone.
func (s *session) over() { s.once.Do(func() { close(s.gone) }) }

// look wakes leave.
func (s *session) look() {
	if s.leaving.Load() {
		wake(s.news)
	}
}

// Read is the server's. While the connection is closing it gets nothing but the end.
func (s *session) Read(p []byte) (int, error) {
	for {
		n, err := s.rw.Read(p)
		if s.took(p[:n]) {
			return n, err
		}
		if err != nil || len(p) == 0 {
			return 0, err
		}
	}
}

// Write is the server's.
func (s *session) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	total := 0
	for s.pending.Load() != nil {
		at := s.out.boundary(p)
		if at < 0 {
			break
		}
		n, err := s.write(p[:at])
		if total += n; err != nil {
			return total, err
		}
		p = p[at:]
		s.writePending()
	}
	n, err := s.write(p)
	if total += n; err == nil {
		s.writePending()
	}
	s.look()
	return total, err
}

// write writes the server's frames. The caller holds writing.
//
// They are noted before they are written, since the client goes on as soon as they are: what is
// done behind a write costs more time than what is done before it (docs/decisions.md). Whoever
// asks what was written waits for its turn to write.
func (s *session) write(p []byte) (int, error) {
	if len(p) == 0 || s.closing.Load() {
		return len(p), nil
	}
	before := s.out
	s.follow(fromServer, &s.out, p)
	n, err := s.rw.Write(p)
	if s.short = n < len(p); s.short { // the server may go on with the rest
		s.out = before
		s.out.skip(p[:n])
	}
	return n, err
}

// writePending writes what is pending if a frame may be here. The caller holds writing.
func (s *session) writePending() {
	if s.pending.Load() == nil || !s.out.clean() || s.closing.Load() {
		return
	}
	b := s.pending.Swap(nil)
	if _, _, lost := s.state(); lost {
		return // no GOAWAY may refuse less than the one before
	}
	// An error is the server's to find, in what it reads and writes.
	_, _ = s.rw.Write(*b)
}

// say writes frames as soon as it can.
func (s *session) say(b []byte) {
	s.pending.Store(&b)
	s.writing.Lock()
	defer s.writing.Unlock()
	s.writePending()
}

// took notes what was read, and reports whether the server is to get it.
func (s *session) took(p []byte) bool {
	n := min(s.preface, len(p))
	s.preface -= n
	s.follow(fromClient, &s.in, p[n:])
	return !s.closing.Load()
}

// follow notes what frames say. It is called for all that is read and written, so it asks for
// the lock once at most, and not for what changes nothing.
func (s *session) follow(from side, f *frames, p []byte) {
	locked := false
	for len(p) > 0 {
		n, begins, ends := f.advance(p)
		p = p[n:]
		if begins && from == fromClient && f.opens(s.newest.Load()) {
			s.newest.Store(f.stream)
		}
		if !(begins && f.wrong || ends && f.tells(from)) {
			continue
		}
		if !locked {
			s.mu.Lock()
			locked = true
		}
		s.note(from, f, ends)
	}
	if locked {
		s.mu.Unlock()
		s.look()
	}
}

// note notes a frame that is complete, or not one of HTTP/2. The caller holds mu.
func (s *session) note(from side, f *frames, ends bool) {
	if f.wrong {
		s.streams.lost = true
	}
	if ends {
		s.streams.begins(from, &f.frame)
		s.streams.ends(from, &f.frame)
		s.acked = s.acked || from == fromClient && f.isAck(s.ping)
		s.away = s.away || from == fromServer && f.kind == frameGoAway
	}
}

// leave says goodbye, after delay, and ends the connection when its streams have ended. A
// client that does not answer the PING is waited for until late: what it has sent is here by
// then, but nobody knows. It returns when the connection is gone, or is not to be ended in
// this way.
func (s *session) leave(delay, late time.Duration) {
	defer s.leaving.Store(false)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.gone:
		return
	}
	s.sayFirst()
	timer.Reset(late - delay)
	var due <-chan time.Time // of the last word
	for said, isDue, isLate := false, false, false; ; {
		acked, last, lost := s.state()
		if lost {
			return
		}
		if acked && due == nil {
			pause := time.NewTimer(min(lastWordTime, (late-delay)/2))
			defer pause.Stop()
			due = pause.C
		}
		if isDue && !said {
			s.say(appendGoAway(nil, last))
			said = true
		}
		// Clients take it for a failure if the connection that they are about to use first ends,
		// and not if it refuses (x/net's http2.Transport: "could not be established").
		if (said && last > 0 || isLate) && s.shut(!said) {
			s.end()
			return
		}
		select {
		case <-s.news:
		case <-due:
			isDue = true
		case <-timer.C:
			isLate = true
		case <-s.gone:
			return
		}
	}
}

// lastWordTime is how long the last word waits after the PING's answer. It need not come
// soon, since what it would refuse is served; and a client may have given a stream its number
// before it saw the first GOAWAY, and send it after the PING's answer (x/net's
// http2.Transport: its reader answers, and another goroutine writes the stream).
const lastWordTime = 250 * time.Millisecond

// sayFirst sends the GOAWAY that refuses nothing.
func (s *session) sayFirst() {
	var ping [8]byte
	binary.BigEndian.PutUint64(ping[:], rand.Uint64())
	s.mu.Lock()
	s.ping, s.acked = ping, false
	s.mu.Unlock()
	s.say(appendPing(appendGoAway(nil, lastStream), ping))
}

// state tells whether the client has answered, which stream was the last, and whether there
// is nothing that could be known or said.
func (s *session) state() (acked bool, last uint32, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked, s.newest.Load(), s.away || s.streams.lost
}

// shut begins to close the connection, unless it is in use. If there was no last word, this
// is it, and what comes later is not served.
func (s *session) shut(lastWord bool) bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !s.out.clean() || s.short || s.pending.Load() != nil {
		return false
	}
	s.mu.Lock()
	// The server is idle before it has written its last answer, and the streams end before
	// it is idle.
	last := s.newest.Load()
	closing := s.streams.none() && s.streams.last() == last && s.c.isIdle()
	if closing {
		s.closing.Store(true)
	}
	s.mu.Unlock()
	if closing && lastWord {
		_, _ = s.rw.Write(appendGoAway(nil, last))
	}
	return closing
}

// end ends a connection on which nothing is written any more: the client is told, and gets
// a while to read that.
func (s *session) end() {
	if s.half != nil {
		_ = s.half.CloseWrite()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-timer.C:
		s.c.end(closedIdle)
	}
}
