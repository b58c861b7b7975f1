package workerset

import "sync"

// maxNews is how many events wait for a function that is slow.
const maxNews = 1 << 16

// maxNewsBytes bounds their reasons, which are workers' words.
const maxNewsBytes = 16 << 20

// news calls a function with one event after the other, in a goroutine of its own, so
// that a slow one delays events and never the set.
type news struct {
	fn   func(Event)
	more chan struct{} // has room for one: there is something to tell, or nothing will be
	done chan struct{} // closed when all is told

	mu     sync.Mutex
	queue  []Event
	bytes  int // of its reasons
	missed int
	closed bool
}

// startNews starts the goroutine. Without a function there are no news.
func startNews(fn func(Event)) *news {
	if fn == nil {
		return nil
	}
	n := &news{fn: fn, more: make(chan struct{}, 1), done: make(chan struct{})}
	go n.run()
	return n
}

func (n *news) run() {
	defer close(n.done)
	for range n.more {
		for {
			n.mu.Lock()
			queue, closed := n.queue, n.closed
			n.queue, n.bytes = nil, 0
			n.mu.Unlock()
			for _, ev := range queue {
				n.fn(ev)
			}
			if len(queue) > 0 {
				continue
			}
			if closed {
				return
			}
			break
		}
	}
}

// add does not wait.
func (n *news) add(ev Event) {
	n.mu.Lock()
	if len(n.queue) >= maxNews || n.bytes+len(ev.Reason) > maxNewsBytes {
		n.missed++
	} else {
		ev.Missed, n.missed = n.missed, 0
		n.queue = append(n.queue, ev)
		n.bytes += len(ev.Reason)
	}
	n.mu.Unlock()
	n.poke()
}

func (n *news) poke() {
	select {
	case n.more <- struct{}{}:
	default:
	}
}

// close waits until all is told. Nothing may be added any more.
func (n *news) close() {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.poke()
	<-n.done
}
