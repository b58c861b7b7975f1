package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
)

// Log is a bounded list of entries. The zero value is empty. Its methods may be called
// from any goroutine.
type Log struct {
	mu      sync.Mutex
	entries []Entry // the newest last; what Death, Upgrade and Parent point to never changes
	size    int
	last    int // N of the newest that there has been
}

// Add appends an entry and counts it. Of its texts it keeps what fits, and makes room by
// forgetting what is oldest.
func (l *Log) Add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.N = l.last
	l.add(e)
}

func (l *Log) add(e Entry) {
	e = e.bounded()
	l.entries = append(l.entries, e)
	l.size += e.size()
	for i := 0; l.size > MaxBytes && i < len(l.entries)-1; i++ {
		l.strip(i)
	}
	gone := 0
	for ; len(l.entries)-gone > MaxEntries || l.size > MaxBytes; gone++ {
		l.size -= l.entries[gone].size()
	}
	l.entries = slices.Delete(l.entries, 0, gone)
}

// strip forgets an entry's dump.
func (l *Log) strip(i int) {
	e := &l.entries[i]
	if e.Death == nil || e.Death.Dump == "" {
		return
	}
	d := *e.Death // others may be reading the one that is there
	d.DumpCut += len(d.Dump)
	l.size -= len(d.Dump)
	d.Dump = ""
	e.Death = &d
}

// Clone is a copy.
func (l *Log) Clone() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Log{entries: slices.Clone(l.entries), size: l.size, last: l.last}
}

// Entries are all that are remembered, the newest last. What they point to is not to be
// changed.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// version counts what was added to the format.
const version = 1

// state is what travels. It is versioned by adding fields only.
type state struct {
	Version int     `json:"v"`
	Last    int     `json:"last"`
	Entries []Entry `json:"entries"`
}

// maxNumber is the highest that an entry can have: who counts on from it must not come to an end.
const maxNumber = math.MaxInt >> 1

// maxState is how large a state is believed to be one, in bytes: JSON makes up to six of
// one.
const maxState = 8 * MaxBytes

// Write writes all entries for another process's Read.
func (l *Log) Write(w io.Writer) error {
	l.mu.Lock()
	st := state{Version: version, Last: l.last, Entries: slices.Clone(l.entries)}
	l.mu.Unlock()
	return json.NewEncoder(w).Encode(st)
}

// ErrState is wrapped by the errors of Read.
var ErrState = errors.New("not a history")

// Read puts the entries that another process has written before those that are there,
// which are counted anew. With an error nothing has changed.
func (l *Log) Read(r io.Reader) error {
	lim := &io.LimitedReader{R: r, N: maxState}
	var st state
	switch err := json.NewDecoder(lim).Decode(&st); {
	case lim.N <= 0:
		return fmt.Errorf("%w: more than %d bytes", ErrState, maxState)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.entries
	l.entries, l.size, l.last = nil, 0, 0
	for _, e := range st.Entries {
		if e.N <= l.last || e.N > maxNumber || e.Death == nil && e.Upgrade == nil && e.Parent == nil {
			continue // it makes no sense
		}
		l.last = e.N
		l.add(e)
	}
	l.last = max(l.last, min(st.Last, maxNumber))
	for _, e := range own {
		l.last++
		e.N = l.last
		l.add(e)
	}
	return nil
}
