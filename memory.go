package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/snapshot"
)

// This file is what a parent knows that its workers do not: it is in a file without a name,
// which the supervisor keeps, so that the next parent has it when this one has died.

const (
	// memoryFile is the file's name.
	memoryFile = "handover.memory"
	// memoryPace is how long a change may wait to be written: of many, one is written.
	memoryPace = 50 * time.Millisecond
)

// memoryState is versioned by adding fields only. All of it may be missing.
type memoryState struct {
	Version    int             `json:"v"`
	Pid        int             `json:"pid"` // of the parent that has written it
	Generation int             `json:"generation"`
	Since      time.Time       `json:"since"` // from when it has decided
	Set        json.RawMessage `json:"set,omitempty"`
	Metrics    json.RawMessage `json:"metrics,omitempty"`
	History    json.RawMessage `json:"history,omitempty"`
	// Back is the generation that can be gone back to, and Upgrade how the last upgrade has ended.
	Back    *wayBack         `json:"back,omitempty"`
	Upgrade *control.Outcome `json:"upgrade,omitempty"`
}

// memory writes the file while this process decides.
type memory struct {
	p     *parent
	file  *os.File
	dirty chan struct{} // cap 1

	mu   sync.Mutex // held while something is written
	w    *snapshot.Writer
	held bool // another process may write
}

func newMemory(p *parent) *memory { return &memory{p: p, dirty: make(chan struct{}, 1)} }

// open finds the file, or makes one.
func (m *memory) open() (err error) {
	m.file, err = m.p.up.KeptFile(memoryFile, func() (*os.File, error) { return launch.MemoryFile(memoryFile) })
	return err
}

// past is what is in the file, nil if there is nothing.
func (m *memory) past() *memoryState {
	text := snapshot.Read(m.file)
	if text == nil {
		return nil
	}
	past := &memoryState{}
	if err := json.Unmarshal(text, past); err != nil {
		m.p.log.Warn("what the previous parent remembered can't be read", "what", memoryFile, "error", err)
		return nil
	}
	return past
}

// look says that something has changed. It does not wait.
func (m *memory) look() {
	select {
	case m.dirty <- struct{}{}:
	default:
	}
}

// run writes what changes, until ctx ends.
func (m *memory) run(ctx context.Context) {
	mute := false
	for {
		select {
		case <-m.dirty:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		err := m.write(ctx)
		if err != nil && !mute && ctx.Err() == nil {
			m.p.log.Warn("what this parent knows is lost if it dies", "error", err)
		}
		mute = err != nil
		select {
		case <-time.After(max(memoryPace, 20*time.Since(began))): // a long history takes its time
		case <-ctx.Done():
			return
		}
	}
}

// now writes what is known before anybody is told of it: whoever has heard of something can ask the
// next parent about it.
func (m *memory) now() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if m.write(ctx) != nil {
		m.look()
	}
}

// write writes what is known now.
func (m *memory) write(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return nil
	}
	if m.w == nil {
		m.w = snapshot.NewWriter(m.file)
	}
	st := memoryState{Version: 1, Pid: os.Getpid(), Generation: m.p.up.Generation(), Since: m.p.since}
	var err error
	if st.Set, err = m.p.set.Snapshot(ctx); err != nil {
		return err
	}
	if st.Metrics, err = m.p.metrics.Give(ctx, m.p.set); err != nil {
		return err
	}
	var past bytes.Buffer
	if err := m.p.records.history.Write(&past); err != nil {
		return err
	}
	st.History = past.Bytes()
	st.Back, st.Upgrade = m.p.upgrades.left()
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return m.w.Write(b)
}

// hold leaves the file to the next parent, or takes it back.
func (m *memory) hold(held bool) {
	m.mu.Lock()
	m.held, m.w = held, nil // which counts on from what another process has written
	m.mu.Unlock()
	m.look()
}

// recall takes in what a dead parent has left, and notes its death.
func (p *parent) recall(past *memoryState) {
	p.upgrades.last = past.Upgrade
	p.takeMetrics(past.Metrics)
	if err := p.records.history.Read(bytes.NewReader(past.History)); err != nil {
		p.log.Warn("what the previous parent remembered can't be read", "what", historyFile, "error", err)
	}
	death := &history.Parent{Pid: past.Pid, Generation: past.Generation, Started: past.Since}
	if launch.Elsewhere != nil { // the anchor knows; systemd says it in its own journal
		if ws, ok := launch.Elsewhere(past.Pid); ok {
			death.Exit = launch.StatusOf(ws).String()
		}
	}
	p.records.history.Add(history.Entry{Time: time.Now(), Parent: death})
}
