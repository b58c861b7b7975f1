// Package logs remembers what the workers of a service have printed lately, also those
// that are dead. It is bounded, and goes from parent to parent. Who follows it is never
// waited for.
package logs

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a Book. What does not fit goes, the oldest first.
const (
	MaxWorker = 64 << 10 // bytes of one worker
	MaxBytes  = 4 << 20  // of all
	MaxDead   = 32       // workers that have ended
	// lineBytes is what a line takes besides its text.
	lineBytes = 128
)

// Worker says which one.
type Worker struct {
	Group      string `json:"group"`
	Slot       int    `json:"slot"`
	ID         int    `json:"id"`
	Generation int    `json:"generation"`
	Pid        int    `json:"pid"`
}

// Line is a line that a worker has printed.
type Line struct {
	// N counts all lines of the service, from 1, over upgrades, too.
	N    int       `json:"n"`
	Time time.Time `json:"time"`
	Worker
	Stream string `json:"stream"` // stdout or stderr
	Text   string `json:"text"`
}

func (l Line) size() int { return len(l.Text) + lineBytes }

// Book is the memory of a service. The zero value is empty. Its methods may be called
// from any goroutine, and wait for nobody.
type Book struct {
	mu        sync.Mutex
	live      map[Worker]*log
	dead      []*log // the latest last
	size      int
	last      int // N of the newest line
	followers map[*Follower]bool
}

// log is what one worker has printed.
type log struct {
	worker Worker
	lines  []Line // the newest last
	size   int
}

// Add takes in a line that a worker has printed, without its end, on its stdout or stderr.
func (b *Book) Add(at time.Time, w Worker, stream, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	line := Line{N: b.last, Time: at.UTC().Round(time.Millisecond), Worker: w, Stream: stream, Text: bounded(text)}
	b.put(b.of(w), line)
	for f := range b.followers {
		f.add(line)
	}
}

// bounded is a text that is not too long, and is one.
func bounded(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), MaxWorker/2)], "?")
}

// of is the log of a worker. What somebody prints that the dead one has started is among
// its lines.
func (b *Book) of(w Worker) *log {
	if l := b.live[w]; l != nil {
		return l
	}
	if i := slices.IndexFunc(b.dead, func(l *log) bool { return l.worker == w }); i >= 0 {
		return b.dead[i]
	}
	if b.live == nil {
		b.live = map[Worker]*log{}
	}
	l := &log{worker: w}
	b.live[w] = l
	return l
}

// put appends a line and makes room.
func (b *Book) put(l *log, line Line) {
	l.lines = append(l.lines, line)
	l.size += line.size()
	b.size += line.size()
	for l.size > MaxWorker {
		b.shorten(l)
	}
	for b.size > MaxBytes {
		if len(b.dead) > 0 && b.dead[0] != l {
			b.size -= b.dead[0].size
			b.dead = slices.Delete(b.dead, 0, 1)
			continue
		}
		b.shorten(b.largest())
	}
}

// shorten forgets a log's oldest line.
func (b *Book) shorten(l *log) {
	n := l.lines[0].size()
	l.size -= n
	b.size -= n
	l.lines[0] = Line{}
	l.lines = l.lines[1:] // append moves what is left, now and then
}

func (b *Book) largest() (most *log) {
	for _, l := range slices.AppendSeq(slices.Clone(b.dead), maps.Values(b.live)) {
		if most == nil || l.size > most.size {
			most = l
		}
	}
	return most
}

// End says that a worker has ended. Those that have ended last are remembered.
func (b *Book) End(w Worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.live[w]; l != nil {
		delete(b.live, w)
		b.bury(l)
	}
}

func (b *Book) bury(l *log) {
	b.dead = append(b.dead, l)
	for len(b.dead) > MaxDead {
		b.size -= b.dead[0].size
		b.dead = slices.Delete(b.dead, 0, 1)
	}
}

// Lines are those of the workers that match, with an N beyond after, in order, and of
// these the last n. The last N of all is last.
func (b *Book) Lines(match func(Worker) bool, after, n int) (list []Line, last int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines(match, after, n), b.last
}

func (b *Book) lines(match func(Worker) bool, after, n int) []Line {
	list := []Line{}
	for _, l := range slices.AppendSeq(slices.Clone(b.dead), maps.Values(b.live)) {
		if !match(l.worker) {
			continue
		}
		i, _ := slices.BinarySearchFunc(l.lines, after+1, func(line Line, n int) int { return line.N - n })
		list = append(list, l.lines[max(i, len(l.lines)-n):]...)
	}
	slices.SortFunc(list, func(a, b Line) int { return a.N - b.N })
	return list[max(0, len(list)-n):]
}
