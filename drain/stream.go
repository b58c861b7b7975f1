package drain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// Streams is the [Server] of connections of your own protocol: one call of Handler for
// each. Give it to [New], or to Serve of a worker:
//
//	w.Serve(ctx, "kv", &drain.Streams{Handler: serve})
//
// One Streams is served by one Drainer.
type Streams struct {
	// Handler serves a connection, in a goroutine of its own, and the connection is closed
	// when it returns. The context ends when the connection should leave this process: see
	// [Stream.Move]. It is not meant for what the handler does meanwhile, such as a query
	// whose answer the client still gets. A panic is logged, and ends this connection only.
	Handler func(ctx context.Context, c *Stream)

	mu    sync.Mutex
	d     *Drainer
	calls int           // of Handler, and of Serve
	none  chan struct{} // closed when there are none, if anybody waits for that
}

// claim makes it the server of a Drainer.
func (s *Streams) claim(d *Drainer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.Handler == nil:
		return fmt.Errorf("%w: Streams without a Handler", ErrConfig)
	case s.d != nil:
		return fmt.Errorf("%w: another Drainer has these Streams: make one for each listener", ErrConfig)
	}
	s.d = d
	return nil
}

// Serve is called by [Drainer.Serve]. With another listener than that of a Drainer it
// returns an error that wraps [ErrConfig].
func (s *Streams) Serve(ln net.Listener) error {
	l, ok := ln.(*listener)
	if s.mu.Lock(); !ok || l.d != s.d {
		s.mu.Unlock()
		return fmt.Errorf("%w: Streams are served by a Drainer: give them to New", ErrConfig)
	}
	s.calls++
	s.mu.Unlock()
	defer s.ended()
	for pause := time.Duration(0); ; {
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			c, _ := tracked(nc)
			s.start(c, nil)
			continue
		}
		// Out of descriptors, for example. net/http waits in the same way.
		var t interface{ Temporary() bool }
		if !errors.As(err, &t) || !t.Temporary() {
			return err
		}
		pause = min(max(5*time.Millisecond, 2*pause), time.Second)
		select {
		case <-time.After(pause):
		case <-l.closed:
		}
	}
}

// Shutdown waits until no handler runs any more, or the context is done.
func (s *Streams) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.none == nil {
		s.none = make(chan struct{})
		if s.calls == 0 {
			close(s.none)
		}
	}
	none := s.none
	s.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Streams) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls--; s.calls == 0 && s.none != nil && !isClosed(s.none) {
		close(s.none)
	}
}

// start serves a connection, which has come with that state, or none.
func (s *Streams) start(c *conn, state []byte) {
	ctx, leave := context.WithCancel(context.Background())
	st := &Stream{c: c, state: state, leave: leave}
	c.stream.Store(st)
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	go func() {
		defer s.ended()
		defer leave()
		defer st.Close()
		defer func() {
			if p := recover(); p != nil {
				s.d.log.Error("the handler of a connection panicked", "remote", remote(c), "error", p, "stack", string(debug.Stack()))
			}
		}()
		s.Handler(ctx, st)
	}()
	if s.d.begun.Load() {
		wake(s.d.giver) // it may have to leave at once
	}
}

var (
	// ErrLeave is returned by [Stream.Read], instead of waiting and without anything read,
	// when the connection should leave this process: see [Stream.Move]. The next Read is as
	// it was before. It is a net.Error, and temporary: crypto/tls can go on after it.
	ErrLeave error = leaveError{}

	// ErrMoved is returned by all methods of a connection that has moved. It wraps
	// net.ErrClosed.
	ErrMoved = fmt.Errorf("drain: the connection has moved: %w", net.ErrClosed)
	// ErrNowhere is wrapped by what [Stream.Move] returns when nobody takes the connection,
	// nor will: the service stops, or it is none that can move.
	ErrNowhere = errors.New("drain: there is no process to move the connection to")
	// ErrNotNow is wrapped by what Move returns when nobody takes the connection at the
	// moment. When that may have changed, Read returns ErrLeave once more.
	ErrNotNow = errors.New("drain: the connection can't move now")
	// ErrInUse is returned by Move while another goroutine is in Read or Write.
	ErrInUse = errors.New("drain: the connection can't move while something is read from it or written to it")
	// ErrState is wrapped by what Move returns about more than [MaxState] bytes.
	ErrState = errors.New("drain: the state of the connection is too large")
)

type leaveError struct{}

func (leaveError) Error() string   { return "drain: the connection should leave this process" }
func (leaveError) Timeout() bool   { return false }
func (leaveError) Temporary() bool { return true }

// Stream is a connection of [Streams]. Its methods may be called from any goroutine. It is
// a net.Conn; deadlines are the application's, and do not move with it.
type Stream struct {
	c     *conn
	state []byte
	leave context.CancelFunc

	mu       sync.Mutex
	reads    int // calls under way
	writes   int
	deadline time.Time     // of the application's, for reading
	poked    bool          // the socket's is in the past
	told     word          // what the handler has been told
	due      bool          // Read has to say it
	pinned   bool          // Read says nothing
	moved    bool          // another process has it
	answered chan struct{} // closed when the handler has done something about what it was told
}

// State is what came with the connection from the process that had it before: what was
// given to its Move, empty but not nil if that was nothing. It is nil for a new connection.
func (s *Stream) State() []byte { return s.state }

// Read reads what the client has sent. It returns [ErrLeave], and has read nothing then,
// when the connection should leave, even if there is something to be read.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.moved:
			return 0, ErrMoved
		case s.due:
			s.due = false
			return 0, ErrLeave
		}
		s.answerLocked()
		s.reads++
		s.mu.Unlock()
		n, err := s.c.Conn.Read(p)
		if n > 0 && !s.c.heard.Load() {
			s.c.heard.Store(true)
		}
		s.mu.Lock()
		s.reads--
		if s.poked {
			s.poked = false
			_ = s.c.Conn.SetReadDeadline(s.deadline)
		}
		expired := !s.deadline.IsZero() && !time.Now().Before(s.deadline)
		if n > 0 || !timedOut(err) || expired && !s.due {
			return n, err
		}
	}
}

// Write writes to the client. What it has taken is sent, wherever the connection is by
// then. It is not interrupted when the connection should leave.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved {
		return 0, ErrMoved
	}
	s.writes++
	s.mu.Unlock()
	n, err := s.c.Conn.Write(p)
	s.mu.Lock()
	s.writes--
	return n, err
}

// CloseWrite tells the client that nothing more comes, and goes on reading. Where the
// connection can't do that, the error wraps errors.ErrUnsupported.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved {
		return ErrMoved
	}
	half, ok := s.c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("drain: CloseWrite of a connection of %s: %w", s.c.d.ln.Addr(), errors.ErrUnsupported)
	}
	return half.CloseWrite()
}

// Close closes the connection. After a Move it does nothing.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answerLocked()
	if s.moved {
		return nil
	}
	return s.c.end(finished)
}

// Pin keeps Read from returning ErrLeave, for who hands the connection to something that
// could not go on after it. The context still ends, and Move still works.
func (s *Stream) Pin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned, s.due = true, false
}

func (s *Stream) LocalAddr() net.Addr { return s.c.LocalAddr() }

// RemoteAddr is the client's address. It is an empty one, and not nil, if the connection
// has come from another process and the client was gone by then.
func (s *Stream) RemoteAddr() net.Addr {
	if a := s.c.RemoteAddr(); a != nil {
		return a
	}
	if a, ok := s.LocalAddr().(*net.UnixAddr); ok {
		return &net.UnixAddr{Net: a.Net}
	}
	return &net.TCPAddr{}
}

// SetReadDeadline is as in net.Conn. When it has passed, Read returns
// os.ErrDeadlineExceeded, and not ErrLeave.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved {
		return ErrMoved
	}
	if s.deadline = t; s.poked {
		return nil // the read that was poked sets it
	}
	return s.c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is as in net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.c.SetWriteDeadline(t) }

// SetDeadline is as in net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// NetConn returns the connection as it was accepted, for its options. Do not read from it,
// write to it, set its deadlines or close it.
func (s *Stream) NetConn() net.Conn { return s.c.Conn }

// answerLocked tells who waits for it that the handler has done something. The caller
// holds mu.
func (s *Stream) answerLocked() {
	if s.answered != nil {
		close(s.answered)
		s.answered = nil
	}
}
