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
// plain process that binds its sockets itself, or takes those that systemd has
// bound.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/threads"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/signals"
)

// App is what the program does. It runs once in every worker; it may open
// databases first, and usually ends in Worker.Serve. Its context ends when the
// drain begins: it should then return when its work is done. An error that it
// returns before that is a failure of the worker. Returning nil before that is
// none, but the worker is replaced all the same.
type App func(ctx context.Context, w *Worker) error

// Config says how a worker behaves. The zero value works below a parent.
type Config struct {
	// Listen are the sockets to bind where there is no parent: "[NAME=]URL",
	// for example "http=tcp://:8080" or "dns=udp://:53"; networks are tcp, udp (and
	// tcp4, …), unix, unixgram and unixpacket. What a supervisor has bound and
	// passed (LISTEN_FDS, sd_listen_fds_with_names(3)) under such a name is taken
	// instead, whatever its address is, but has to be of the same kind (ErrKind);
	// where no name fits, what is bound to the address.
	Listen []string
	// DrainTimeout is how long a drain may take before what is left is cut.
	// Default 25 s. A parent may say something else when it asks.
	DrainTimeout time.Duration
	// LameDuck is how long idle connections stay open in a drain. Default 5 s.
	LameDuck time.Duration
	// MaxConns is how many connections of each socket may be open at a time: see
	// drain.Config.MaxConns. Default 0, no limit.
	MaxConns int
	// TicketRotation is how often there is a new key for TLS session tickets: Every of
	// tickets.Config, which says how long those before it open tickets. All workers of a
	// group should agree on it. At least 1 s, default 12 h; without a parent the keys are
	// crypto/tls's own, unless it is set.
	TicketRotation time.Duration
	// StopDelay is how long a process without a parent goes on serving after it was
	// asked to stop, Stopping being closed, so that a load balancer notices. Default 0.
	// With a parent, that one sees to it.
	StopDelay time.Duration
	// Reopen, if set, is called at SIGUSR1, which asks to open log files anew after
	// they were rotated. See also Worker.OnReopen; without any the signal does nothing.
	Reopen func() error
	// Logger gets what has no caller to return to. Default slog.Default().
	Logger *slog.Logger
}

const (
	// answerTimeout is how long a failing worker waits for the parent to say who
	// takes its place, before it drains by itself.
	answerTimeout = time.Second
	// appGrace is how long the app may take to return after the drain's time is
	// up.
	appGrace = time.Second
	// lastWordTime is how long the last word to a parent that does not read may
	// take.
	lastWordTime = time.Second
	// spareThreads is how many goroutines may wait in system calls, files and DNS for
	// example, when no more threads may be started.
	spareThreads = 4
)

var (
	// ErrDraining is returned by Serve when there is nothing to serve any more.
	ErrDraining = errors.New("worker: draining")
	// ErrConfig is wrapped by errors about the configuration and the environment.
	ErrConfig = errors.New("worker: bad configuration")
)

// Worker is the running worker, for its app. Its methods may be called from any
// goroutine.
type Worker struct {
	cfg   Config
	log   *slog.Logger
	conn  link        // to the parent
	home  home        // where another parent finds this worker
	alone atomic.Bool // its parent has died, and there is no other one yet
	post  *message.Endpoint
	mail  outgoing // of post
	mute  bool     // handlers of messages have not come to their end
	eager bool     // may accept as soon as it is ready, without the parent's word
	keeps bool     // its group keeps workers that have failed
	ctx   context.Context
	stop  context.CancelFunc

	mu       sync.Mutex
	sockets  map[string]*socket
	passed   listen.Passed // by a supervisor, and not claimed yet
	drainers []*drain.Drainer
	packets  []*packets
	queues   map[string]*drain.Queue // by socket
	tickets  sharing
	reopens  []func() error
	move     drain.Role
	state    wire.State
	before   wire.Phase // that of the drain
	running  int        // the app, and what was started by Go and Serve
	going    bool       // accepts
	explicit bool       // Ready is the app's to call
	timeout  time.Duration
	exitCode int
	because  error // of its first failure, after which a process without a parent ends

	service        Service
	serviceChanged chan struct{} // closed when service changes

	received atomic.Int64  // packets
	accept   chan struct{} // closed when going is set

	dirty   chan struct{} // cap 1: the state has changed
	quit    chan struct{} // closed when the last word is due
	idle    chan struct{} // closed when nothing runs any more
	leave   chan struct{} // closed when a drain begins
	mayExit chan struct{}
	ending  chan struct{} // closed when the service is about to stop
	once    struct{ idle, leave, mayExit, ending sync.Once }

	unheard    *time.Timer // drains when the parent does not answer a failure
	retireAsks bool        // a retirement waits behind a failure that may be forgiven
	unsaid     []failure   // where the group keeps those that have failed
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
// of ctx begins one. It installs signal handlers, so call it once in a process. It has the
// runtime start some threads before the worker is ready, for a time when none may be started.
// All goroutines that it started have ended when it returns, unless the app, or
// what it started by Go, did not return in time.
func Run(ctx context.Context, cfg Config, app App) (err error) {
	if !Inherited() {
		defer func() { lastWord(err) }()
	}
	watchdog, err := sdnotify.Watchdog()
	if err != nil {
		return bad("%w", err)
	}
	w, err := newWorker(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.stop()
	defer w.closeMessages()

	var listening, speaking, stopping sync.WaitGroup
	if w.HasParent() {
		listening.Go(w.listen)
		// Each signal takes the runtime a round trip between threads, 0.7 ms in
		// all, which is a fifth of the whole start of a small program. So the app
		// goes first, also where there is one CPU; the parent hears nothing of this
		// worker before all signals are caught.
		w.start(app)
		runtime.Gosched()
	}
	sigctx, release := context.WithCancel(context.Background())
	defer release()
	execute, interrupt := signals.Actor(sigctx, w.signalMap(), signals.Logger(w.log))
	ignorePipe()
	threads.Keep(spareThreads)
	if w.HasParent() {
		speaking.Go(w.speak)
	} else {
		if sdnotify.Enabled() {
			speaking.Go(func() { w.supervised(watchdog) })
		}
		w.start(app)
	}
	stopping.Go(func() {
		if err := execute(); errors.Is(err, signals.ErrStop) {
			w.retire()
		}
	})

	stopOnCtx := context.AfterFunc(ctx, w.retire)
	w.finish()
	stopOnCtx()
	w.conn.setWriteDeadline(time.Now().Add(lastWordTime))
	close(w.quit)
	speaking.Wait()
	w.conn.close()
	listening.Wait()
	w.home.close()
	interrupt(nil)
	stopping.Wait()
	w.heard() // nobody answers any more
	w.closeSockets()
	w.closeQueues()
	w.tickets.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.exitCode != 0 && !w.HasParent() && w.because != nil {
		return fmt.Errorf("worker %s failed: %s: %w", w.Name(), w.state.Cause, w.because)
	}
	if w.exitCode != 0 {
		return fmt.Errorf("worker %s failed: %s: %s", w.Name(), w.state.Cause, w.state.Reason)
	}
	return nil
}

// start runs the app. It is not waited for beyond the drain's time: it may be what
// hangs.
func (w *Worker) start(app App) {
	w.running = 1
	go w.run(func(ctx context.Context) error { return app(ctx, w) }, true)
}

// finish waits for the worker's end: nothing runs any more, and the parent lets it
// go.
func (w *Worker) finish() {
	select {
	case <-w.idle:
		// The app returned by itself, or the drain has ended.
	case <-w.leave:
		timeout := w.drainTimeout()
		select {
		case <-w.idle:
		case <-time.After(timeout + appGrace):
			w.log.Error("the app has not returned by the end of the drain: exiting without it",
				"timeout", timeout)
		}
	}
	w.beginDrain(0, false) // idle without a drain: what there was to drain is drained
	w.endMessages()
	fault.Point(fault.DrainEnds)
	w.phase(wire.PhaseDrained)
	select {
	case <-w.mayExit:
	case <-time.After(w.drainTimeout()):
		w.log.Warn("nobody said that the replacement serves: exiting without it")
	}
	fault.Point(fault.DrainExits)
	w.phase(wire.PhaseExiting)
}

func (w *Worker) phase(p wire.Phase) {
	w.mu.Lock()
	w.state.Phase = p
	if p == wire.PhaseExiting {
		w.state.ExitCode = w.exitCode
	}
	w.mu.Unlock()
	w.changed()
}

// beginDrain stops accepting; timeout 0 is the configured one. If nobody accepts after
// this worker, it accepts first what is queued. It does nothing the second time.
func (w *Worker) beginDrain(timeout time.Duration, last bool) {
	w.once.leave.Do(func() {
		fault.Point(fault.DrainBegins)
		w.mu.Lock()
		if timeout > 0 {
			w.timeout = timeout
		}
		w.before, w.state.Phase = w.state.Phase, wire.PhaseDraining
		// Under the lock, so that no Serve begins after it.
		w.stop()
		drainers, packets := w.drainers, w.packets
		timeout = w.timeout
		w.mu.Unlock()
		w.stopping()
		for _, p := range packets {
			p.End(ErrDraining)
		}
		for _, d := range drainers {
			if last {
				d.DrainQueue(timeout)
			} else {
				d.Drain(timeout)
			}
		}
		if !w.HasParent() {
			w.release()
		}
		close(w.leave)
		w.changed()
		fault.Point(fault.DrainQuiet)
	})
}

// Stopping is closed when clients should go elsewhere, if they can: when the service,
// or this worker, is about to stop. It may still serve for a while (StopDelay). A
// handler that a load balancer asks for readiness answers 503 from then on. Where the
// drain begins at once, as in an upgrade, the app's context has ended by then.
func (w *Worker) Stopping() <-chan struct{} { return w.ending }

func (w *Worker) stopping() { w.once.ending.Do(func() { close(w.ending) }) }

func (w *Worker) release() { w.once.mayExit.Do(func() { close(w.mayExit) }) }

func (w *Worker) drainTimeout() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.timeout
}
