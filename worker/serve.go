package worker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
)

// Serve serves the socket of that name until it has drained, and returns nil
// then. Accepting begins when the worker is ready and the parent says so. The
// drain begins when the worker's does, or when ctx ends.
//
// Any server with Serve and Shutdown will do; package drain says what it does
// for an *http.Server, and for *drain.Streams, which are connections of the app's own
// protocol. Several servers are several calls, in goroutines started
// by Go. A socket that is unknown or taken is an error, as is a server that fails;
// after the drain has begun it is ErrDraining.
func (w *Worker) Serve(ctx context.Context, name string, srv drain.Server, opts ...Option) error {
	return w.serve(ctx, name, srv, nil, opts)
}

// An Option of Serve and ServeTLS changes how the socket is drained.
type Option func(*drain.Config)

// Wrap has the server's connections come from what wrap makes of the socket: a listener that
// reads the PROXY protocol, or sets limits. They do not move: see drain.Config.Wrap.
func Wrap(wrap func(net.Listener) net.Listener) Option {
	return func(cfg *drain.Config) { cfg.Wrap = wrap }
}

// ServeTLS is Serve with TLS, HTTP/2 and HTTP/1.1: drain.Config.TLS says what cfg has to
// have. srv.TLSConfig is not used. Clients that come back resume their sessions with other
// workers, too: see TLS.
func (w *Worker) ServeTLS(ctx context.Context, name string, srv *http.Server, cfg *tls.Config, opts ...Option) error {
	if cfg == nil {
		return fmt.Errorf("worker: ServeTLS(%q) has no tls.Config: give it one with a certificate", name)
	}
	return w.serve(ctx, name, srv, w.TLS(name, cfg), opts)
}

func (w *Worker) serve(ctx context.Context, name string, srv drain.Server, tlsConfig *tls.Config, opts []Option) error {
	ln, err := w.Listener(name)
	if err != nil {
		return err
	}
	cfg := drain.Config{
		Timeout: w.cfg.DrainTimeout, LameDuck: w.cfg.LameDuck, TLS: tlsConfig, Queue: w.queues[name], MaxConns: w.cfg.MaxConns, Logger: w.log,
	}
	for _, o := range opts {
		o(&cfg)
	}
	d, err := drain.New(srv, ln, cfg)
	if err != nil {
		ln.Close()
		return err
	}
	w.mu.Lock()
	if w.ctx.Err() != nil {
		w.mu.Unlock()
		ln.Close()
		return ErrDraining
	}
	w.running++
	defer w.ended()
	// With one socket an eager worker is ready at its first call of Accept, and
	// need not be told so.
	if !w.going && (w.explicit || !w.eager || len(w.sockets) > 1) {
		d.Hold()
	}
	d.Move(w.move)
	w.drainers = append(w.drainers, d)
	w.sockets[name].drainer = d
	w.mu.Unlock()

	stop := context.AfterFunc(ctx, func() {
		if w.ctx.Err() == nil { // else beginDrain sees to it, and knows whether it is the last one
			d.Drain(w.drainTimeout())
		}
	})
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-d.Serving():
			w.serves(name)
		case <-d.Draining():
		}
		// A parent has to know that this worker has served somebody: one that has
		// is replaced at once whatever ends it.
		select {
		case <-d.Accepted():
			w.changed()
		case <-d.Draining():
		}
		<-d.Draining()
		select {
		case <-d.Quiet():
		case <-d.Done():
		}
		w.changed()
	})
	return d.Serve()
}

// serves notes that a socket is being served; when all are, the worker is ready.
func (w *Worker) serves(name string) {
	w.mu.Lock()
	if s := w.sockets[name]; s != nil {
		s.served = true
	}
	all := !w.explicit
	for _, s := range w.sockets {
		all = all && s.served
	}
	w.mu.Unlock()
	if all {
		w.Ready()
	}
}

// Explicit makes readiness the app's to say: without it a worker is ready when
// all its sockets are being served; one that PacketConn or File has returned counts
// as that. Call it before Serve, and Ready later.
func (w *Worker) Explicit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.explicit = true
}

// Ready says that the worker could serve; it accepts nothing before. A worker with
// no sockets has to call it, as has one that serves a Listener in its own way; for
// others see Explicit.
func (w *Worker) Ready() {
	w.mu.Lock()
	w.passed.Reject(w.log)
	if w.state.Phase == wire.PhaseStarting {
		w.state.Phase = wire.PhaseReady
	}
	w.mu.Unlock()
	if w.eager {
		w.goAhead()
		return
	}
	w.changed()
}

// goAhead begins to accept.
func (w *Worker) goAhead() {
	w.mu.Lock()
	if !w.going {
		close(w.accept)
		if w.move == drain.Stay {
			w.movesLocked(drain.Share)
		}
	}
	w.going = true
	if w.state.Phase == wire.PhaseReady {
		w.state.Phase = wire.PhaseServing
	}
	for _, d := range w.drainers {
		d.Go()
	}
	alone := !w.HasParent()
	w.mu.Unlock()
	if alone {
		w.hearService(wire.Service{Ready: true})
	}
	w.changed()
}
