package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// version counts what was added to the format.
const version = 1

// state is what travels. It is versioned by adding fields only.
type state struct {
	Version int        `json:"v"`
	Last    int        `json:"last"`
	Logs    []logState `json:"logs"` // the dead first, the latest of these last
}

// logState is a log in columns, which takes a parent much less time than an object for
// each line: whoever waits for a commit waits for that.
type logState struct {
	Worker
	Dead    bool    `json:"dead,omitempty"`
	N       []int   `json:"n"`
	MS      []int64 `json:"ms"`      // when, in milliseconds since 1970
	Streams string  `json:"streams"` // a letter for each, o or e
	Text    string  `json:"text"`    // all lines, each with its end
}

// Letters of Streams.
var (
	letters = map[string]byte{"stdout": 'o', "stderr": 'e'}
	streams = map[byte]string{'o': "stdout", 'e': "stderr"}
)

// maxNumber is the highest that a line can have: who counts on from it must not come to an end.
const maxNumber = math.MaxInt >> 1

// maxState is how large a state is believed to be one, in bytes: JSON makes up to six of
// one.
const maxState = 8 * MaxBytes

// Write writes all lines for another process's Read.
func (b *Book) Write(w io.Writer) error {
	b.mu.Lock()
	st := state{Version: version, Last: b.last, Logs: []logState{}}
	for _, l := range b.dead {
		st.Logs = append(st.Logs, l.state(true))
	}
	for _, l := range b.live {
		st.Logs = append(st.Logs, l.state(false))
	}
	b.mu.Unlock()
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(st)
}

func (l *log) state(dead bool) logState {
	st := logState{Worker: l.worker, Dead: dead, N: []int{}, MS: []int64{}}
	var names, text strings.Builder
	for _, line := range l.lines {
		st.N = append(st.N, line.N)
		st.MS = append(st.MS, line.Time.UnixMilli())
		names.WriteByte(letters[line.Stream])
		text.WriteString(line.Text)
		text.WriteByte('\n')
	}
	st.Streams, st.Text = names.String(), text.String()
	return st
}

// ErrState is wrapped by the errors of Read.
var ErrState = errors.New("not a memory of logs")

// Read puts what another process has written before what is there, which is counted
// anew. With an error nothing has changed.
func (b *Book) Read(r io.Reader) error {
	lim := &io.LimitedReader{R: r, N: maxState}
	var st state
	switch err := json.NewDecoder(lim).Decode(&st); {
	case lim.N <= 0:
		return fmt.Errorf("%w: more than %d bytes", ErrState, maxState)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	live, dead := b.live, b.dead
	own := b.lines(func(Worker) bool { return true }, 0, b.last)
	b.live, b.dead, b.size, b.last = nil, nil, 0, min(max(0, st.Last), maxNumber)
	for _, ls := range st.Logs {
		b.take(ls)
	}
	for _, line := range own {
		b.last++
		line.N = b.last
		b.put(b.of(line.Worker), line)
	}
	for _, l := range dead {
		if now := b.live[l.worker]; now != nil && live[l.worker] == nil {
			delete(b.live, l.worker)
			b.bury(now)
		}
	}
	return nil
}

// take goes on with the log of one worker.
func (b *Book) take(ls logState) {
	l := b.of(ls.Worker)
	if len(l.lines) > 0 {
		return // it is there twice
	}
	if ls.Dead {
		delete(b.live, ls.Worker)
		b.bury(l)
	}
	last, i := 0, 0
	for text := range strings.Lines(ls.Text) {
		if i >= min(len(ls.N), len(ls.MS), len(ls.Streams)) {
			return
		}
		n, ms, stream := ls.N[i], ls.MS[i], streams[ls.Streams[i]]
		i++
		if n <= last || n > maxNumber || stream == "" {
			continue // it makes no sense
		}
		last = n
		b.last = max(b.last, n)
		b.put(l, Line{N: n, Time: time.UnixMilli(ms).UTC(), Worker: ls.Worker, Stream: stream, Text: bounded(strings.TrimSuffix(text, "\n"))})
	}
}
