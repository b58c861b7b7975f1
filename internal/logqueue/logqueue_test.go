package logqueue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// hung takes nothing while it is closed.
type hung struct {
	mu   sync.Mutex
	cond *sync.Cond
	shut bool
	out  strings.Builder
	err  error
}

func newHung() *hung {
	h := &hung{}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *hung) set(shut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = shut
	h.cond.Broadcast()
}

func (h *hung) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.shut {
		h.cond.Wait()
	}
	h.out.Write(p)
	return len(p), h.err
}

func (h *hung) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.String()
}

func logTo(h *hung) slog.Handler {
	return NewHandler(slog.NewTextHandler(h, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// TestWritten: what could be written is, before the call returns, with what its error is.
func TestWritten(t *testing.T) {
	defer goleak.VerifyNone(t)
	h := newHung()
	log := slog.New(logTo(h))
	for i := range 100 {
		log.With("a", i).WithGroup("g").Info("said", "b", 1)
		if want := fmt.Sprintf("msg=said a=%d g.b=1\n", i); !strings.HasSuffix(h.String(), want) {
			t.Fatalf("%q", h.String())
		}
	}
	h.err = errors.New("no room")
	if err := log.Handler().Handle(t.Context(), slog.Record{}); !errors.Is(err, h.err) {
		t.Error(err)
	}
	var many sync.WaitGroup
	for range 100 {
		many.Go(func() { log.Info("beside others") })
	}
	many.Wait()
	if n := strings.Count(h.String(), "beside others"); n != 100 {
		t.Errorf("%d records", n)
	}
}

// TestHung: nobody waits twice for a log that takes nothing, and when it takes something it
// gets all that there was, in order, and how much there is not.
func TestHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHung()
		log := slog.New(logTo(h))
		for round := range 2 {
			h.set(true)
			began := time.Now()
			for i := range most + 1 + 5 { // one is being written
				log.Info("said", "round", round, "i", i)
			}
			if took := time.Since(began); took != patience {
				t.Errorf("they took %v", took)
			}
			h.set(false)
			synctest.Wait()
			log.Info("later", "round", round)
			var want bytes.Buffer
			for r := range round + 1 {
				for i := range most + 1 {
					fmt.Fprintf(&want, "msg=said round=%d i=%d\n", r, i)
				}
				fmt.Fprintf(&want, "msg=\"log records are missing here: nobody took them\" records=5\nmsg=later round=%d\n", r)
			}
			if h.String() != want.String() {
				t.Errorf("got %s", h.String())
			}
		}
	})
}

// TestHandler: it is a handler as others are.
func TestHandler(t *testing.T) {
	var buf bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		buf.Reset()
		return NewHandler(slog.NewJSONHandler(&buf, nil))
	}, func(t *testing.T) map[string]any { return parse(t, buf.Bytes()) })
}

func parse(t *testing.T, line []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
