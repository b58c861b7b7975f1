// Package logqueue keeps who logs from waiting for a log that nobody reads: a terminal that was
// stopped by Ctrl-S, a pipe whose reader hangs.
package logqueue

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// patience is how long a record may take before nobody waits for it any more. What is
	// written in that time is written when Handle returns, so that a process that ends, or
	// crashes, has said all.
	patience = 100 * time.Millisecond
	// most is how many records may wait. Further ones are left out, and counted.
	most = 1000
)

// NewHandler hands records on to next, one after the other and in order. If next does not take
// one in time, it and those that come after it wait in memory, up to a thousand, until it does;
// how many were left out is said then, in a record of its own.
//
// It may be used from any goroutine. It has a goroutine only as long as next has a record.
func NewHandler(next slog.Handler) slog.Handler {
	return &handler{next: next, queue: &queue{plain: next}}
}

type handler struct {
	next  slog.Handler
	queue *queue
}

func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	return h.queue.put(&record{to: h.next, ctx: context.WithoutCancel(ctx), Record: r.Clone(), written: make(chan struct{})})
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(attrs), h.queue}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.queue}
}

// record is one on its way.
type record struct {
	slog.Record
	to      slog.Handler
	ctx     context.Context
	err     error
	written chan struct{} // closed when err is set
}

func (r *record) write() { r.err = r.to.Handle(r.ctx, r.Record) }

type queue struct {
	plain slog.Handler // for what this package says itself

	mu      sync.Mutex
	waiting []*record
	writing bool // a goroutine writes
	late    bool // for longer than anybody waits
	lost    int
}

func (q *queue) put(r *record) error {
	q.mu.Lock()
	if len(q.waiting) == most {
		q.lost++
		q.mu.Unlock()
		return nil
	}
	q.waiting = append(q.waiting, r)
	if !q.writing {
		q.writing = true
		go q.write()
	}
	late := q.late
	q.mu.Unlock()
	if late {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.written:
		return r.err
	case <-timer.C:
		q.mu.Lock()
		defer q.mu.Unlock()
		q.late = q.writing
		return nil
	}
}

// write writes until nothing waits.
func (q *queue) write() {
	for {
		r := q.next()
		r.write()
		if q.ends(r) {
			return
		}
	}
}

// next is what is to be written now.
func (q *queue) next() *record {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.waiting[0]
	q.waiting = q.waiting[1:]
	return r
}

// ends reports whether that was all.
func (q *queue) ends(r *record) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer close(r.written)
	if q.lost > 0 {
		said := slog.NewRecord(time.Now(), slog.LevelWarn, "log records are missing here: nobody took them", 0)
		said.AddAttrs(slog.Int("records", q.lost))
		// At the end of what was there when they were left out.
		q.waiting = append(q.waiting, &record{Record: said, to: q.plain, ctx: context.Background(), written: make(chan struct{})})
		q.lost = 0
	}
	if len(q.waiting) > 0 {
		return false
	}
	q.waiting, q.writing, q.late = nil, false, false
	return true
}
