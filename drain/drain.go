// Package drain serves one listener, and stops serving it in such a way that no
// client is refused, reset or cut, as long as another process holds the socket:
//
//	g.Add(drain.Actor(&http.Server{Handler: mux}, ln, drain.Config{}))
//
// # The contract
//
// What a drain does depends on what a connection is doing when it begins:
//
//   - In the kernel's queue: it stays there for whoever else holds the socket.
//     The socket is never shut down, only this process's descriptor of it is
//     closed, at the end. A unix socket's path is never removed.
//   - Accepted, and a request is being read or answered: it is finished. HTTP/1
//     answers whose handlers begin after the drain carry "Connection: close", unless
//     the connection is going to move.
//   - Accepted, and it waits for a request, or for the rest of a request's header: if
//     another process takes over (Config.Successor, or Config.Queue and
//     [Drainer.Move]), it moves there as it is. What is in flight moves after its
//     answer. Otherwise, or where it can't move, it is closed after a lame-duck time, in
//     which a request that is on its way still arrives and is served. The time counts
//     from the beginning of the drain or, if later, from the end of the last answer.
//   - HTTP/2, in plaintext or with TLS: the client gets a GOAWAY that refuses nothing, and
//     a round trip later one that names the last stream that it has opened (RFC 9113,
//     section 6.8). So whatever it has sent is served, although it may not be able to send
//     it again, and when the streams have ended, so does the connection. Connections are
//     told one after the other, a millisecond apart, but within a fifth of the lame-duck
//     time. A client that does not answer a PING, or has opened no stream at all, has the
//     lame-duck time, and longer if it has streams open.
//   - Hijacked: it is awaited. [Drainer.Draining] tells its owner to say goodbye.
//   - Of [Streams]: its handler is told when it can move, with a state of the handler's own,
//     or that it can't: see [Stream.Move]. It is awaited.
//   - Left when the timeout has passed: cut, counted and named in the log and in
//     the [Report].
//
// The drain ends as soon as no connection is left.
//
// # Servers
//
// A [*http.Server] gets all of that. [New] chains its ConnState and wraps its
// Handler, and its ConnContext where connections move; set them before New. Its
// Shutdown is called when no connection is left (earlier, it would drop requests that
// it has read), so functions given to RegisterOnShutdown run at the end: use Draining
// for what must happen at the beginning. After a timeout, Shutdown is given one second.
//
// A connection that has moved is a new one to the next process's server: its ConnState
// sees StateNew, and ConnContext makes a new context. See [Pin].
//
// [Streams] are for connections of your own protocol. Their Shutdown, too, is called when no
// connection is left.
//
// With Config.TLS the server is served with TLS. HTTP/2 is net/http's then as well, but
// spoken by a second http.Server with the same configuration, which is what handlers find
// as [http.ServerContextKey]. A server in whose TLSNextProto there is an implementation of
// HTTP/2 already (golang.org/x/net/http2.ConfigureServer) keeps that, and its connections
// have the lame-duck time.
//
// Any other [Server] has its Shutdown called when the drain begins, and it has read from
// all connections that it was given, or written to them, or a second later: how it treats
// its connections is its own affair, until the timeout. Embed *http.Server in a
// type of your own, for TLS with ServeTLS, and it is such a server. Do not pass a
// listener of crypto/tls, nor make one in Config.Wrap: net/http does not recognise its
// connections any more.
//
// # Concurrency
//
// All methods may be called from any goroutine, at any time and repeatedly, except
// that Serve is called once. Only Serve starts goroutines, and they have ended
// when it returns (a Server that ignores Shutdown for a second excepted, which
// is logged).
package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/handover-go/handover/internal/moving"
)

// A Server serves the connections of a listener. Serve returns when the listener
// is closed or after Shutdown; Shutdown waits for connections in its own way, until
// the context is done. [*http.Server] is one.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Defaults of [Config].
const (
	DefaultTimeout  = 25 * time.Second // below the 30 s of Kubernetes
	DefaultLameDuck = 5 * time.Second
)

// Config says how a drain goes. The zero value is good.
type Config struct {
	// Timeout is how long a drain may take before what is left is cut.
	// 0 means DefaultTimeout.
	Timeout time.Duration

	// LameDuck is how long idle connections are left open during a drain, so
	// that a request that is on its way does not meet a closed connection.
	// 0 means DefaultLameDuck. It ends with the timeout at the latest.
	LameDuck time.Duration

	// Successor, usually an upgrader.Upgrader, says when another process has taken over.
	// Idle connections of HTTP/1, and Streams, go there then, instead of being closed, and
	// come from the predecessor, as they are; clients do not notice. The listener has to be the
	// successor's own (upgrader.Upgrader.Listen) and not wrapped, for these are all that
	// is certain not to know more of a connection than its socket says. nil: none.
	Successor Successor

	// TLS has the server serve with TLS: HTTP/2 and HTTP/1.1, as its Protocols say, or
	// what NextProtos adds. It needs a certificate, in Certificates or by GetCertificate
	// or GetConfigForClient; what the latter returns has to name its own NextProtos. It
	// replaces the server's TLSConfig, is not changed, and is cloned by Serve (see
	// http.Server.ServeTLS). The server has to be an *http.Server. nil: plaintext.
	TLS *tls.Config

	// Queue is the same where somebody else says by [Drainer.Move] what is to be done.
	// It is where idle connections of HTTP/1, and Streams, go to, and come from, that move
	// between processes: see [Drainer.Move]. A socket has one for all its servers; what is of
	// another kind is left alone. It stays the caller's, who may close it
	// when Done is closed. nil: none move, unless there is a Successor.
	Queue *Queue

	// MaxConns is how many connections may be open at a time. At the limit none is accepted:
	// they wait in the kernel's queue, from which other processes that have the socket accept
	// them. Nor are connections taken from other processes, as long as one of them is below
	// its limit; if all are at it, they are taken all the same, and accepting goes on when
	// there are fewer. It is not about DrainQueue and Deliver. 0: there is no limit.
	MaxConns int

	// Wrap, if set, makes a listener of ln, from which the server's connections come: one
	// that reads the PROXY protocol, or sets limits. These connections don't move, as the next
	// process would not know what this one has read or counted; they have the lame-duck
	// time. What it makes is closed when a drain has stopped accepting. Unlike a listener that
	// is given to New already wrapped, it does without a SetDeadline of its own, and DrainQueue
	// accepts what waits. A client's RemoteAddr is not asked for before something was
	// read. nil: ln itself.
	Wrap func(net.Listener) net.Listener

	// Logger gets the beginning and the end of a drain, and what was cut.
	// nil means slog.Default.
	Logger *slog.Logger
}

// A Successor knows how a service goes from one process to the next.
type Successor interface {
	// QueueOf returns the descriptors of the two ends of the queue by which
	// connections that ln accepts go from one process to the next.
	QueueOf(ln net.Listener) (give, take int, err error)
	// Decided is closed when this process may take connections.
	Decided() <-chan struct{}
	// Replaced is closed when another process does, so that this one may give its own
	// away.
	Replaced() <-chan struct{}
}

// Queue is a process's access to a queue of connections that move.
type Queue = moving.Queue

// ErrConfig is wrapped by errors about what [New] was given.
var ErrConfig = errors.New("drain: bad config")

// ErrServed is returned by a second call of Serve.
var ErrServed = errors.New("drain: Serve was called twice: make one Drainer for each call")

// Validate reports, wrapping [ErrConfig], durations and limits that are negative, and TLS
// without a certificate.
func (c Config) Validate() error {
	if c.Timeout < 0 {
		return fmt.Errorf("%w: Timeout is %v: it must be positive, or 0 for %v", ErrConfig, c.Timeout, DefaultTimeout)
	}
	if c.LameDuck < 0 {
		return fmt.Errorf("%w: LameDuck is %v: it must be positive, or 0 for %v", ErrConfig, c.LameDuck, DefaultLameDuck)
	}
	if c.MaxConns < 0 {
		return fmt.Errorf("%w: MaxConns is %d: it must be positive, or 0 for no limit", ErrConfig, c.MaxConns)
	}
	if t := c.TLS; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return fmt.Errorf("%w: TLS has no certificate: set Certificates, GetCertificate or GetConfigForClient", ErrConfig)
	}
	return nil
}

// A Report says what became of the connections that were open when a drain began,
// or were accepted by calls of accept(2) that were under way.
type Report struct {
	Finished   int           // ended by the server or by the client, or by a drain of HTTP/2
	ClosedIdle int           // closed by the drain while idle, after the lame-duck time
	Moved      int           // given to another process
	Cut        int           // closed by the drain while in use
	CutConns   []string      // the remote addresses of the first 10 that were cut
	Took       time.Duration // from the beginning of the drain to its end, or until now
}

// Drainer serves a listener until it is drained. Make one with [New].
type Drainer struct {
	srv     Server
	http    bool     // srv is an *http.Server
	streams *Streams // the same, if it is that
	bare    bool     // ln is a socket and nothing else, and the server one whose connections can move
	kind    moving.Kind
	own     bool // cfg.Queue is this Drainer's to close
	ln      *listener
	cfg     Config
	log     *slog.Logger // with the listener's address

	serving  chan struct{}
	accepted chan struct{}
	draining chan struct{}
	quiet    chan struct{}
	cutting  chan struct{} // closed by Stop
	done     chan struct{}
	changed  chan struct{} // has room for one: something that ends a drain may have happened
	fewer    chan struct{} // the same: there are fewer connections than MaxConns

	begun    atomic.Bool  // draining is closed; for every request to read
	requests atomic.Int64 // whose handlers were called

	role        atomic.Int32              // a Role
	full        atomic.Bool               // the queue was, when something was sent last
	broken      atomic.Bool               // nothing can be sent
	pausedUntil atomic.Pointer[time.Time] // nothing is given away; whatever is done to the clock
	scarce      atomic.Bool               // descriptors have been, when something could be taken
	giver       chan struct{}             // has room for one: there may be something to give away
	receiver    chan struct{}             // the same: something may be taken
	settled     chan struct{}             // closed when connections move no more
	parked      sync.WaitGroup
	sending     sync.Mutex // streams wait for room one after the other
	taking      sync.Mutex // from the decision to take a connection until it is among conns; before mu

	mu        sync.Mutex
	started   bool // Serve was called
	stopped   bool // Stop was called
	over      bool // connections are not served any more
	leaving   bool // the sessions say goodbye
	gate      chan struct{}
	timeout   time.Duration // that of the drain
	since     time.Time     // the drain's beginning
	last      bool          // nobody accepts after this process; of the drain, as since
	emptying  bool          // the accept queue is emptied: the drain has begun, and accepts
	accepting int           // calls of accept(2) that are under way
	conns     map[*conn]struct{}
	served    int // connections that were accepted
	movedIn   int // and that were taken from other processes
	movedOut  int
	crowdedAt time.Time // when it was said last
	pausing   bool      // the listener's deadline is in the past for want of room
	report    Report

	secured *deliveries    // of HTTP/2 with TLS, for the inner server; nil: none
	leaves  sync.WaitGroup // for the sessions that say goodbye

	inner       *deliveries // nil until something is delivered
	innerServed <-chan struct{}
}

// New makes a Drainer that will serve ln with srv. It owns ln from then on:
// ln is closed when the drain has ended, and by a drain that comes before Serve.
// With an error, ln stays the caller's.
//
// Other processes may hold the same socket, but no other part of this one may use
// ln itself: a drain sets its deadline. Listeners without SetDeadline (all but
// those of package net) are closed as soon as a drain begins, instead.
//
// See the package's documentation for what New does to an *http.Server.
func New(srv Server, ln net.Listener, cfg Config) (*Drainer, error) {
	if srv == nil {
		return nil, fmt.Errorf("%w: no server", ErrConfig)
	}
	if ln == nil {
		return nil, fmt.Errorf("%w: no listener", ErrConfig)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.LameDuck == 0 {
		cfg.LameDuck = DefaultLameDuck
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Drainer{
		srv:      srv,
		cfg:      cfg,
		log:      cfg.Logger.With("addr", ln.Addr().String()),
		serving:  make(chan struct{}),
		accepted: make(chan struct{}),
		draining: make(chan struct{}),
		quiet:    make(chan struct{}),
		cutting:  make(chan struct{}),
		done:     make(chan struct{}),
		changed:  make(chan struct{}, 1),
		fewer:    make(chan struct{}, 1),
		conns:    make(map[*conn]struct{}),
		giver:    make(chan struct{}, 1),
		receiver: make(chan struct{}, 1),
		settled:  make(chan struct{}),
	}
	d.ln = &listener{Listener: ln, socket: ln, d: d, closed: make(chan struct{}), family: familyOf(ln)}
	if cfg.Wrap != nil {
		if d.ln.Listener = cfg.Wrap(ln); d.ln.Listener == nil {
			return nil, fmt.Errorf("%w: Wrap has made no listener", ErrConfig)
		}
	}
	if hs, ok := srv.(*http.Server); ok {
		if err := d.prepare(hs); err != nil {
			return nil, err
		}
		d.http, d.kind, d.bare = true, moving.HTTP, cfg.Queue != nil && cfg.TLS == nil && bare(d.ln.Listener)
		d.findQueue(ln)
	} else if cfg.TLS != nil {
		return nil, fmt.Errorf("%w: TLS is for an *http.Server, not for a %T: let that do it", ErrConfig, srv)
	}
	if s, ok := srv.(*Streams); ok {
		if err := s.claim(d); err != nil {
			return nil, err
		}
		d.streams, d.kind, d.bare = s, moving.Stream, cfg.Queue != nil && bare(d.ln.Listener)
		d.findQueue(ln)
	}
	if u, ok := ln.(interface{ SetUnlinkOnClose(bool) }); ok {
		u.SetUnlinkOnClose(false)
	}
	return d, nil
}

// Hold makes accepting wait for [Drainer.Go]. Call it before Serve: the server is
// then being served, but takes no connection. A later Hold lets one more be taken.
func (d *Drainer) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate == nil {
		d.gate = make(chan struct{})
	}
}

// Go ends a Hold.
func (d *Drainer) Go() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate != nil {
		close(d.gate)
		d.gate = nil
	}
}

// Serving is closed when the server has called Accept for the first time: it is
// being served. It stays open if the server fails before that, or if a drain
// comes before Serve: wait for Draining, too.
func (d *Drainer) Serving() <-chan struct{} { return d.serving }

// Accepted is closed when the first connection has been accepted, or taken from
// another process.
func (d *Drainer) Accepted() <-chan struct{} { return d.accepted }

// Draining is closed when a drain begins, also when it begins because the server
// has failed. Owners of hijacked connections should then end them.
func (d *Drainer) Draining() <-chan struct{} { return d.draining }

// Quiet is closed when a drain has begun and no connection is accepted any more: the
// last call of accept(2) has returned. The connections that are open are served on.
func (d *Drainer) Quiet() <-chan struct{} { return d.quiet }

// Done is closed when the drain has ended.
func (d *Drainer) Done() <-chan struct{} { return d.done }

// Drain begins a drain. What is left after timeout is cut; 0 means Config.Timeout.
// It neither blocks nor cuts. If a drain has begun, Drain does nothing. Before
// Serve, it makes Serve return nil at once.
func (d *Drainer) Drain(timeout time.Duration) { d.drainNow(timeout, false) }

// DrainQueue is Drain for when nobody accepts after this process: what waits in the
// accept queue is accepted first, for a second at most.
func (d *Drainer) DrainQueue(timeout time.Duration) { d.drainNow(timeout, true) }

func (d *Drainer) drainNow(timeout time.Duration, queue bool) {
	// The service stops, and nobody accepts afterwards.
	if next := d.cfg.Successor; next != nil && isClosed(next.Decided()) && !isClosed(next.Replaced()) {
		queue = true
	}
	switch first, started := d.begin(timeout, queue); {
	case !first:
	case started && queue: // Serve empties it first
	case started:
		d.ln.wake()
	default: // Serve will not do it
		d.ln.Close()
		d.finish()
	}
}

// Stop begins a drain, or goes on with the one that has begun, with a timeout that
// is over: every connection is closed now. It does not block: wait for Done.
func (d *Drainer) Stop() {
	d.Drain(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.stopped = true
		close(d.cutting)
	}
}

// Report tells what has happened to connections since the drain began.
// It is final when Done is closed.
func (d *Drainer) Report() Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.report
	r.CutConns = slices.Clone(r.CutConns)
	if r.Took == 0 && !d.since.IsZero() {
		r.Took = time.Since(d.since)
	}
	return r
}

// Served counts the connections that were accepted.
func (d *Drainer) Served() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.served
}

// Requests counts the requests whose handlers have been called, of HTTP/2 each stream's.
// Those on connections that were taken from other processes are among them. A [Server]
// other than an [*http.Server] does not tell: of one it is the connections that were
// accepted, which counts none twice when it moves.
func (d *Drainer) Requests() int {
	if !d.http {
		return d.Served()
	}
	return int(d.requests.Load())
}

// Moved counts the connections that were taken from other processes, and those that
// were given to others.
func (d *Drainer) Moved() (in, out int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.movedIn, d.movedOut
}

// Active counts the connections that are open, and those of them that are idle:
// nothing of a request has been read. A Server other than *http.Server does not
// tell which are.
func (d *Drainer) Active() (open, idle int) {
	for _, c := range d.open() {
		open++
		if c.isIdle() {
			idle++
		}
	}
	return open, idle
}

// Hijacked counts the connections that handlers have taken over.
func (d *Drainer) Hijacked() (n int) {
	for _, c := range d.open() {
		if c.phase.Load() == hijacked {
			n++
		}
	}
	return n
}

// Actor returns the two functions that run.Group.Add of github.com/oklog/run wants:
// Serve, and a function that begins a drain, and neither cuts nor blocks. So a
// group ends when all of its servers have drained.
func (d *Drainer) Actor() (execute func() error, interrupt func(error)) {
	return d.Serve, func(error) { d.Drain(0) }
}

// Actor is [New] and [Drainer.Actor]. An error of New is execute's.
func Actor(srv Server, ln net.Listener, cfg Config) (execute func() error, interrupt func(error)) {
	d, err := New(srv, ln, cfg)
	if err != nil {
		return func() error { return err }, func(error) {}
	}
	return d.Actor()
}
