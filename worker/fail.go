package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
)

// maxReason bounds what the parent is told of an error, in bytes: far below the
// channel's cap.
const maxReason = 64 << 10

// failure is one that the parent has not been told of yet, because it has to forgive
// another one first.
type failure struct {
	cause  wire.Cause
	reason string
}

// maxUnsaid is how many of them are kept. All are in the log.
const maxUnsaid = 16

// run runs one function of the app and makes its failure the worker's, which it
// may be able to go on after.
func (w *Worker) run(fn func(context.Context) error, fatal bool) {
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
	w.fail(cause, err, fatal)
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
		w.state.Nth++
	}
	w.mu.Unlock()
	if n == 0 {
		w.once.idle.Do(func() { close(w.idle) })
	}
}

// Go runs fn in a goroutine. The worker is drained only when it has returned. An
// error or a panic of fn is a failure of the worker; where its group keeps those that
// have failed (workerset.Group.KeepFailed), the worker goes on without fn. Its context
// is the app's.
func (w *Worker) Go(fn func(context.Context) error) {
	w.mu.Lock()
	w.running++
	w.mu.Unlock()
	go w.run(fn, !w.keeps)
}

// Fail says that this worker should be replaced because of err: the parent is
// told, and starts another; this one stops accepting, finishes what it has, and
// exits non-zero once the other one serves. The first failure counts. Fail
// returns at once. Without a parent nobody replaces the process: it drains and
// exits.
func (w *Worker) Fail(err error) {
	if err == nil {
		err = errors.New("Fail was called without an error")
	}
	w.fail(wire.CauseError, err, false)
}

// Handler makes a panic of h a failure of the worker, which net/http would hide:
// the request is answered as net/http does, other requests are finished, and
// the worker is replaced. http.ErrAbortHandler stays what it is. Without a parent
// a panic is logged and nothing more: no client is to end the service.
func (w *Worker) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					w.handlerPanicked(fmt.Errorf("%v, at %s %s", p, r.Method, r.URL.Path))
				}
				panic(p)
			}
		}()
		h.ServeHTTP(rw, r)
	})
}

// StreamHandler is Handler for drain.Streams: a panic of h ends its connection, and the
// worker is replaced.
func (w *Worker) StreamHandler(h func(context.Context, *drain.Stream)) func(context.Context, *drain.Stream) {
	return func(ctx context.Context, c *drain.Stream) {
		defer func() {
			if p := recover(); p != nil {
				w.handlerPanicked(fmt.Errorf("%v, with the connection of %v", p, c.RemoteAddr()))
				panic(p)
			}
		}()
		h(ctx, c)
	}
}

func (w *Worker) handlerPanicked(err error) {
	if !w.HasParent() {
		w.log.Error("handler panicked", "error", err)
		return
	}
	w.fail(wire.CauseHandlerPanic, err, false)
}

func (w *Worker) fail(cause wire.Cause, err error, fatal bool) {
	w.log.Error("worker failed", "cause", string(cause), "error", err)
	w.mu.Lock()
	if w.because == nil {
		w.because = err
	}
	w.mu.Unlock()
	w.depart(cause, err.Error(), 1, fatal)
}

func (w *Worker) retire() { w.depart(wire.CauseRetire, "asked to retire", 0, false) }

// stopAlone is the end of a process without a parent.
func (w *Worker) stopAlone(cause wire.Cause) {
	if cause == wire.CauseRetire && w.cfg.StopDelay > 0 {
		w.stopping()
		w.log.Info("stopping: serving on for a while", "delay", w.cfg.StopDelay)
		time.AfterFunc(w.cfg.StopDelay, func() { w.beginDrain(0, true) })
		return
	}
	w.beginDrain(0, true)
}

// depart asks the parent for a replacement. The first cause counts, except that a
// failure goes before what is none, and one that can't be forgiven before others.
func (w *Worker) depart(cause wire.Cause, reason string, code int, fatal bool) {
	w.mu.Lock()
	single := !w.HasParent()
	defer func() {
		w.mu.Unlock()
		if single {
			w.stopAlone(cause)
		}
	}()
	st := &w.state
	if st.Cause != "" && (!cause.Failure() || st.Cause.Failure() && (st.Fatal || !fatal)) {
		w.retireAsks = w.retireAsks || cause == wire.CauseRetire
		if w.keeps && cause.Failure() && len(w.unsaid) < maxUnsaid {
			w.unsaid = append(w.unsaid, failure{cause, reason})
		}
		return
	}
	st.Cause, st.Reason, st.Fatal = cause, reason[:min(len(reason), maxReason)], fatal
	st.Nth++
	w.exitCode = code
	if single {
		return
	}
	w.heardLocked()
	wait := answerTimeout
	if w.alone.Load() {
		wait = 0
	}
	w.unheard = time.AfterFunc(wait, func() {
		if w.alone.Load() { // nobody starts another one, and would let this one go
			w.release()
		}
		w.beginDrain(0, false)
	})
	w.changed()
}

// heardLocked: the parent has answered, or there is something new to be answered.
func (w *Worker) heardLocked() {
	if w.unheard != nil {
		w.unheard.Stop()
		w.unheard = nil
	}
}

// heard notes that the parent has answered a failure.
func (w *Worker) heard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heardLocked()
}

// forgiven goes on as if nothing had been, unless that is impossible.
func (w *Worker) forgiven() {
	w.mu.Lock()
	st := &w.state
	if st.Cause == "" || st.Fatal || !st.Cause.Failure() {
		w.mu.Unlock()
		return
	}
	w.heardLocked()
	st.Cause, st.Reason, w.exitCode = "", "", 0
	again := w.retireAsks
	w.retireAsks = false
	var next failure
	if len(w.unsaid) > 0 {
		next, w.unsaid = w.unsaid[0], w.unsaid[1:]
	}
	w.mu.Unlock()
	if next.cause != "" {
		w.depart(next.cause, next.reason, 1, false)
	}
	if again {
		w.retire()
	}
}
