package logs

import "context"

// maxQueue is how much waits for a follower that does not read, in bytes.
const maxQueue = 256 << 10

// Follower is somebody who is told of new lines.
type Follower struct {
	b     *Book
	match func(Worker) bool
	more  chan struct{} // has room for one: there is something

	// Below, the Book's mutex.
	queue  []Line
	size   int
	missed int // lines after those of the queue
}

// Follow begins with what Lines returns, up to maxQueue bytes, and goes on with what is
// printed from then on, until Close.
func (b *Book) Follow(match func(Worker) bool, after, n int) *Follower {
	f := &Follower{b: b, match: match, more: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := b.lines(match, after, n)
	size := 0
	for i := len(lines) - 1; i >= 0; i-- {
		if size += lines[i].size(); size > maxQueue {
			lines = lines[i+1:]
			break
		}
	}
	for _, line := range lines {
		f.add(line)
	}
	if b.followers == nil {
		b.followers = map[*Follower]bool{}
	}
	b.followers[f] = true
	return f
}

// add puts a line into the queue, if there is room. One that was missed is followed by no
// other before Next has said so.
func (f *Follower) add(line Line) {
	switch {
	case !f.match(line.Worker):
		return
	case f.missed > 0 || f.size+line.size() > maxQueue:
		f.missed++
	default:
		f.queue = append(f.queue, line)
		f.size += line.size()
	}
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// Next waits for lines, and returns them and how many have been left out after them,
// because nobody asked for so long. It fails with ctx's error. Only one may wait.
func (f *Follower) Next(ctx context.Context) (lines []Line, missed int, err error) {
	select {
	case <-f.more:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	lines, missed = f.queue, f.missed
	f.queue, f.size, f.missed = nil, 0, 0
	return lines, missed, nil
}

// Close ends it.
func (f *Follower) Close() {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	delete(f.b.followers, f)
}
