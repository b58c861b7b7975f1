package worker

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
)

var discard = slog.New(slog.DiscardHandler)

// drainer is one that is never served.
func drainer(t *testing.T, srv drain.Server, cfg drain.Config) *drain.Drainer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = discard
	d, err := drain.New(srv, ln, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDrainingIsTrue: a worker says that it drains when it accepts no more.
func TestDrainingIsTrue(t *testing.T) {
	d := drainer(t, &http.Server{}, drain.Config{})
	w := &Worker{before: wire.PhaseServing, drainers: []*drain.Drainer{d}}
	w.state.Phase = wire.PhaseDraining
	if got := w.stateLocked().Phase; got != wire.PhaseServing {
		t.Errorf("before: %s", got)
	}
	d.Drain(0)
	<-d.Quiet()
	if got := w.stateLocked().Phase; got != wire.PhaseDraining {
		t.Errorf("after: %s", got)
	}
	<-d.Done()
}

// slow is a server, and a successor that keeps whoever begins the drain waiting.
type slow struct{ asked, answer chan struct{} }

func (slow) Serve(net.Listener) error       { return nil }
func (slow) Shutdown(context.Context) error { return nil }

func (slow) QueueOf(net.Listener) (give, take int, err error) { return 0, 0, io.EOF }
func (slow) Replaced() <-chan struct{}                        { return nil }
func (s slow) Decided() <-chan struct{} {
	close(s.asked)
	<-s.answer
	return nil
}

// TestLastOneAcceptsWhatIsQueued: the drain ends the app's context first, and what Serve does
// about that is not to be faster than the one who knows that nobody accepts afterwards.
func TestLastOneAcceptsWhatIsQueued(t *testing.T) {
	dir, err := os.MkdirTemp("", "h") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	w, err := newWorker(t.Context(), Config{Listen: []string{"http=unix://" + path}, MaxConns: 1, LameDuck: time.Millisecond, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer w.closeMessages()
	first := slow{make(chan struct{}), make(chan struct{})}
	w.drainers = []*drain.Drainer{drainer(t, first, drain.Config{Successor: first})}
	w.running = 1
	served := make(chan error, 1)
	go func() {
		served <- w.Serve(w.ctx, "http", &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, r.URL.Path)
		})})
	}()
	for w.accepting() != 1 {
		runtime.Gosched()
	}
	// The first one is all that it may have, the other one waits in the kernel's queue.
	answers := make([]*bufio.Reader, 2)
	for i := range answers {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answers[i] = bufio.NewReader(c)
		if i == 0 {
			answered(t, answers[i])
		}
	}
	mine := make(chan struct{})
	context.AfterFunc(w.ctx, func() { close(mine) })
	begun := make(chan struct{})
	go func() { defer close(begun); w.beginDrain(time.Minute, true) }()
	<-first.asked
	<-mine // and what Serve has asked for comes as soon
	d := w.drainers[1]
	for range 1000 {
		runtime.Gosched()
	}
	select {
	case <-d.Draining():
		t.Error("it drains as if others accepted what is queued")
	default:
	}
	close(first.answer)
	<-begun
	answered(t, answers[1])
	if err := <-served; err != nil {
		t.Error(err)
	}
	if n := d.Served(); n != 2 {
		t.Errorf("%d were accepted", n)
	}
}

// accepting is how many sockets are being served.
func (w *Worker) accepting() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sockets {
		if s.served {
			n++
		}
	}
	return n
}

func answered(t *testing.T, r *bufio.Reader) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "/x" {
		t.Errorf("%q, %v", b, err)
	}
	resp.Body.Close()
}
