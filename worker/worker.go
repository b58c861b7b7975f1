// Package worker is the side of a program that serves: one process of several
// that a parent starts, replaces and lets go.
//
//	func main() {
//		worker.Main(worker.Config{Listen: []string{"http=tcp://:8080"}}, app)
//	}
//
//	func app(ctx context.Context, w *worker.Worker) error {
//		return w.Serve(ctx, "http", &http.Server{Handler: mux()})
//	}
//
// With a parent, the sockets are inherited by name, the worker is ready when all
// of them are being served, and it accepts when the parent says so. It drains
// when the parent tells it to, when it fails (it tells the parent first, so that
// a replacement serves before it is gone), at SIGTERM (the same, but no failure),
// and when every parent is gone. Without a parent the same program runs as one
// plain process that binds its sockets itself.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/signals"
)

// App is what the program does. It runs once in every worker; it may open
// databases first, and usually ends in Worker.Serve. Its context ends when the
// drain begins: it should then return when its work is done. An error that it
// returns before that is a failure of the worker.
type App func(ctx context.Context, w *Worker) error

// Config says how a worker behaves. The zero value works below a parent.
type Config struct {
	// Listen are the sockets to bind where there is no parent: "[NAME=]URL",
	// for example "http=tcp://:8080".
	Listen []string
	// DrainTimeout is how long a drain may take before what is left is cut.
	// Default 25 s. A parent may say something else when it asks.
	DrainTimeout time.Duration
	// LameDuck is how long idle connections stay open in a drain. Default 5 s.
	LameDuck time.Duration
	// Logger gets what has no caller to return to. Default slog.Default().
	Logger *slog.Logger
}

// answerTimeout is how long a failing worker waits for the parent to say who
// takes its place, before it drains by itself.
const answerTimeout = time.Second

// appGrace is how long the app may take to return after the drain's time is up.
const appGrace = time.Second

// ErrDraining is returned by Serve when there is nothing to serve any more.
var ErrDraining = errors.New("worker: draining")

// Worker is the running worker, for its app. Its methods may be called from any
// goroutine.
type Worker struct {
	cfg  Config
	log  *slog.Logger
	conn *wire.Conn // nil without a parent
	ctx  context.Context
	stop context.CancelFunc

	mu       sync.Mutex
	sockets  map[string]*socket
	drainers []*drain.Drainer
	state    wire.State
	running  int  // the app, and what was started by Go and Serve
	going    bool // may accept: there is no parent, or it said so
	explicit bool // Ready is the app's to call
	timeout  time.Duration
	exitCode int

	dirty   chan struct{} // cap 1: the state has changed
	quit    chan struct{} // closed at the very end
	idle    chan struct{} // closed when nothing runs any more
	leave   chan struct{} // closed when a drain begins
	mayExit chan struct{}
	heard   chan struct{} // closed when the parent answered a failure
	once    struct{ idle, leave, mayExit, heard sync.Once }
}

// Main runs app as a worker and exits: with 0 after an orderly drain, with 1
// after a failure, with 2 when the configuration or what was inherited is wrong.
func Main(cfg Config, app App) {
	err := Run(context.Background(), cfg, app)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(ExitCode(err))
}

// ErrConfig is wrapped by errors about the configuration and the environment.
var ErrConfig = errors.New("worker: bad configuration")

// ExitCode is the exit status that fits what Run returned.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrConfig):
		return 2
	}
	return 1
}

// Run is Main without the exit. It returns nil after an orderly drain. The end
// of ctx begins one. It installs signal handlers, so call it once in a process.
func Run(ctx context.Context, cfg Config, app App) error {
	w, err := newWorker(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.stop()

	sigctx, release := context.WithCancel(context.Background())
	defer release()
	notHere := func(context.Context) error { return errors.New("this is a worker: upgrades are its parent's") }
	execute, interrupt := signals.Actor(sigctx, signals.Map{
		syscall.SIGTERM: signals.Stop, syscall.SIGINT: signals.Stop,
		syscall.SIGHUP: notHere, syscall.SIGUSR2: notHere,
	}, signals.Logger(w.log))

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := execute(); errors.Is(err, signals.ErrStop) {
			w.retire()
		}
	})
	if w.conn != nil {
		wg.Go(w.listen)
		wg.Go(w.speak)
	}
	// The app is not waited for beyond the drain's time: it may be what hangs.
	w.running = 1
	go w.run(func(ctx context.Context) error { return app(ctx, w) })

	stopOnCtx := context.AfterFunc(ctx, w.retire)
	w.finish()
	stopOnCtx()
	interrupt(nil)
	close(w.quit)
	if w.conn != nil {
		w.conn.Close()
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.exitCode != 0 {
		return fmt.Errorf("worker %s failed: %s: %s", w.Name(), w.state.Cause, w.state.Reason)
	}
	return nil
}

// finish waits for the worker's end: nothing runs any more, the parent lets it
// go, and its last word is out.
func (w *Worker) finish() {
	select {
	case <-w.idle:
		// The app returned by itself, or the drain has ended.
	case <-w.leave:
		w.mu.Lock()
		timeout := w.timeout
		w.mu.Unlock()
		select {
		case <-w.idle:
		case <-time.After(timeout + appGrace):
			w.log.Error("the app has not returned by the end of the drain: exiting without it",
				"timeout", timeout)
		}
	}
	w.beginDrain(0) // idle without a drain: what there was to drain is drained
	w.mu.Lock()
	w.state.Phase = wire.PhaseDrained
	timeout := w.timeout
	w.mu.Unlock()
	w.changed()
	select {
	case <-w.mayExit:
	case <-time.After(timeout):
		w.log.Warn("nobody said that the replacement serves: exiting without it")
	}
	w.mu.Lock()
	w.state.Phase = wire.PhaseExiting
	w.state.ExitCode = w.exitCode
	s := w.stateLocked()
	w.mu.Unlock()
	if w.conn != nil {
		_ = w.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_ = w.conn.Send(s)
	}
}

// run runs one function of the app and makes its failure the worker's.
func (w *Worker) run(fn func(context.Context) error) {
	defer w.ended()
	var err error
	cause := wire.CauseError
	func() {
		defer func() {
			if r := recover(); r != nil {
				cause, err = wire.CausePanic, fmt.Errorf("%v\n%s", r, debug.Stack())
			}
		}()
		err = fn(w.ctx)
	}()
	if err == nil || cause != wire.CausePanic && w.ctx.Err() != nil && benign(err) {
		return
	}
	w.fail(cause, err)
}

// benign are errors that only say that the drain has begun.
func benign(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, ErrDraining)
}

// ended counts one down of what runs.
func (w *Worker) ended() {
	w.mu.Lock()
	w.running--
	n := w.running
	if n == 0 && w.state.Cause == "" && w.ctx.Err() == nil {
		w.state.Cause, w.state.Reason = wire.CauseDone, "the app returned"
	}
	w.mu.Unlock()
	if n == 0 {
		w.once.idle.Do(func() { close(w.idle) })
	}
}

// Serve serves the socket of that name until it has drained, and returns nil
// then. Accepting begins when the parent says so. The drain begins when the
// worker's does, or when ctx ends.
//
// Any server with Serve and Shutdown will do; package drain says what it does
// for an *http.Server. Several servers are several calls, in goroutines started
// by Go.
func (w *Worker) Serve(ctx context.Context, name string, srv drain.Server) error {
	ln, err := w.Listener(name)
	if err != nil {
		return err
	}
	d, err := drain.New(srv, ln, drain.Config{Timeout: w.cfg.DrainTimeout, LameDuck: w.cfg.LameDuck, Logger: w.log})
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
	if !w.going {
		d.Hold()
	}
	w.drainers = append(w.drainers, d)
	w.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { d.Drain(w.drainTimeout()) })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-d.Serving():
			w.serves(name)
		case <-d.Draining():
		case <-d.Done():
		}
	})
	return d.Serve()
}

// serves notes that a socket is being served; when all are, the worker is ready.
func (w *Worker) serves(name string) {
	w.mu.Lock()
	w.sockets[name].served = true
	all := !w.explicit
	for _, s := range w.sockets {
		all = all && s.served
	}
	w.mu.Unlock()
	if all {
		w.ready()
	}
}

// Explicit makes readiness the app's to say: without it a worker is ready when
// all its sockets are being served. Call it before Serve, and Ready later.
func (w *Worker) Explicit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.explicit = true
}

// Ready says that the worker could serve. A worker with no sockets has to call
// it; for others see Explicit.
func (w *Worker) Ready() { w.ready() }

func (w *Worker) ready() {
	w.mu.Lock()
	if w.state.Phase == wire.PhaseStarting {
		w.state.Phase = wire.PhaseReady
	}
	going := w.going
	w.mu.Unlock()
	if going {
		w.goAhead()
		return
	}
	w.changed()
}

// goAhead begins to accept.
func (w *Worker) goAhead() {
	w.mu.Lock()
	w.going = true
	if w.state.Phase == wire.PhaseReady {
		w.state.Phase = wire.PhaseServing
	}
	for _, d := range w.drainers {
		d.Go()
	}
	w.mu.Unlock()
	w.changed()
}

// Go runs fn in a goroutine. The worker is drained only when it has returned. An
// error or a panic of fn is a failure of the worker. Its context is the app's.
func (w *Worker) Go(fn func(context.Context) error) {
	w.mu.Lock()
	w.running++
	w.mu.Unlock()
	go w.run(fn)
}

// Fail says that this worker should be replaced because of err: the parent is
// told, and starts another; this one stops accepting, finishes what it has, and
// exits non-zero once the other one serves. The first failure counts. Fail
// returns at once.
func (w *Worker) Fail(err error) {
	if err == nil {
		err = errors.New("Fail was called without an error")
	}
	w.fail(wire.CauseError, err)
}

// Handler makes a panic of h a failure of the worker, which net/http would hide:
// the request is answered as net/http does, other requests are finished, and
// the worker is replaced. http.ErrAbortHandler stays what it is.
func (w *Worker) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					w.fail(wire.CauseHandlerPanic, fmt.Errorf("%v, at %s %s", p, r.Method, r.URL.Path))
				}
				panic(p)
			}
		}()
		h.ServeHTTP(rw, r)
	})
}

func (w *Worker) fail(cause wire.Cause, err error) {
	w.log.Error("worker failed", "cause", string(cause), "error", err)
	w.depart(cause, err.Error(), 1)
}

func (w *Worker) retire() { w.depart(wire.CauseRetire, "asked to retire", 0) }

// depart asks the parent for a replacement. The first cause counts.
func (w *Worker) depart(cause wire.Cause, reason string, code int) {
	w.mu.Lock()
	first := w.state.Cause == ""
	if first {
		const most = 64 << 10 // far below the channel's cap
		w.state.Cause, w.state.Reason = cause, reason[:min(len(reason), most)]
		w.exitCode = code
	}
	w.mu.Unlock()
	if !first {
		return
	}
	if w.conn == nil {
		w.beginDrain(0)
		return
	}
	w.changed()
	time.AfterFunc(answerTimeout, func() {
		select {
		case <-w.heard:
		default:
			w.beginDrain(0)
		}
	})
}

// beginDrain stops accepting; timeout 0 is the configured one. It does nothing
// the second time.
func (w *Worker) beginDrain(timeout time.Duration) {
	w.once.leave.Do(func() {
		w.mu.Lock()
		if timeout > 0 {
			w.timeout = timeout
		}
		w.state.Phase = wire.PhaseDraining
		// Under the lock, so that no Serve begins after it.
		w.stop()
		drainers := w.drainers
		timeout = w.timeout
		w.mu.Unlock()
		for _, d := range drainers {
			d.Drain(timeout)
		}
		if w.conn == nil {
			w.release()
		}
		close(w.leave)
		w.changed()
	})
}

func (w *Worker) release() { w.once.mayExit.Do(func() { close(w.mayExit) }) }

func (w *Worker) drainTimeout() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.timeout
}
