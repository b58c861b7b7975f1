// Package excerpt keeps the beginning and the end of what a process prints, for those who ask
// why it failed: a runtime that dies says why first and shows its stacks then, others say it last.
package excerpt

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
)

// Excerpt is what is kept. Its methods may be called from any goroutine.
type Excerpt struct {
	Size int // bytes that are kept of each end

	mu         sync.Mutex
	head, tail []byte
	total      int
}

// Write takes what was printed. It never fails.
func (e *Excerpt) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.total += len(p)
	n := min(len(p), e.Size-len(e.head))
	e.head = append(e.head, p[:n]...)
	e.tail = append(e.tail, p[n:]...)
	if over := len(e.tail) - e.Size; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
	}
	return len(p), nil
}

// String is what was printed, without space around it. Where something is left out it says so,
// in place of whole lines if there are any.
func (e *Excerpt) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	head, tail := e.head, e.tail
	if e.total > len(head)+len(tail) {
		if i := bytes.LastIndexByte(head, '\n'); i >= 0 {
			head = head[:i+1]
		}
		if i := bytes.IndexByte(tail, '\n'); i >= 0 && i < len(tail)-1 {
			tail = tail[i+1:]
		}
		head = fmt.Appendf(bytes.TrimSuffix(bytes.Clone(head), []byte("\n")), "\n… (%d bytes) …\n", e.total-len(head)-len(tail))
	}
	return string(bytes.TrimSpace(slices.Concat(head, tail)))
}
