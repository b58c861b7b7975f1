package state

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/message"
)

// bubble is a service of one process in which time is not real.
type bubble struct {
	t     *testing.T
	e     *message.Endpoint
	log   logBuffer
	began time.Time

	mu    sync.Mutex
	value any
	err   error
	reads int
}

func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, e: message.NewAlone("main"), began: time.Now(), value: "one"}
		test(t, b)
		b.e.Close(nil)
		b.e.Wait()
	})
}

func (b *bubble) clock() int64 { return int64(time.Since(b.began)) + 1 }

func (b *bubble) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&b.log, nil)) }

func (b *bubble) origin() Origin { return From(b.e, message.Slot("main", 1), "v") }

func (b *bubble) set(v any, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.value, b.err = v, err
}

func (b *bubble) poll() Source {
	return Poll(time.Second, func(context.Context) (any, string, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reads++
		return b.value, "", b.err
	})
}

func (b *bubble) serve(src Source) *Server {
	b.t.Helper()
	s, err := serve(b.e, "v", src, b.logger(), b.clock)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bubble) follow(opt Options[string]) *Value[string] {
	b.t.Helper()
	opt.Logger = b.logger()
	v, err := follow(b.t.Context(), b.origin(), opt, b.clock)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
