package handover

import (
	"os"
	"strconv"
	"sync"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
)

// This file is what the supervisor keeps and does for workers when the parent has died: the
// descriptors of programs, until they end, and that those are left alone who were taken over.

// keeping is what is still to be said of that. Whoever has something to say does not wait.
type keeping struct {
	more  chan struct{} // cap 1
	mu    sync.Mutex
	found []string // pids
	list  []kept   // in the order in which it is to be said
}

// kept is a descriptor to be kept, or with nil, to be forgotten.
type kept struct {
	name string
	file *os.File
}

func (k *keeping) poke() {
	select {
	case k.more <- struct{}{}:
	default:
	}
}

// runKeeping says it, until end. It is for the main process only: nobody listens to others.
func (s *supervisor) runKeeping() {
	for {
		select {
		case <-s.keeping.more:
			s.tellFound()
			s.tellKept()
		case <-s.quit:
			return
		}
	}
}

// found notes a worker that was taken over.
func (s *supervisor) found(pid int) {
	s.keeping.mu.Lock()
	s.keeping.found = append(s.keeping.found, strconv.Itoa(pid))
	s.keeping.mu.Unlock()
	s.keeping.poke()
}

// tellFound tells the anchor of these, which would end them after a time.
func (s *supervisor) tellFound() {
	s.keeping.mu.Lock()
	pids := s.keeping.found
	s.keeping.found = nil
	s.keeping.mu.Unlock()
	if len(pids) > 0 && sdnotify.Anchored() {
		s.send([]string{anchor.Keeps(pids)})
	}
}

// keeps notes a descriptor that the supervisor is to keep. It takes a copy.
func (s *supervisor) keeps(name string, f *os.File) {
	if !sdnotify.Stores() {
		return
	}
	fd, err := listen.DupConn(f)
	if err != nil {
		s.p.log.Error("what the next parent needs is not kept", "name", name, "error", err)
		return
	}
	s.note(kept{name, os.NewFile(uintptr(fd), name)})
}

// forgets notes one that it is not to keep any more.
func (s *supervisor) forgets(name string) {
	if sdnotify.Stores() {
		s.note(kept{name: name})
	}
}

func (s *supervisor) note(k kept) {
	s.keeping.mu.Lock()
	s.keeping.list = append(s.keeping.list, k)
	s.keeping.mu.Unlock()
	s.keeping.poke()
}

// tellKept says what was noted.
func (s *supervisor) tellKept() {
	s.keeping.mu.Lock()
	list := s.keeping.list
	s.keeping.list = nil
	s.keeping.mu.Unlock()
	for _, k := range list {
		var err error
		if k.file != nil {
			err = sdnotify.Store(k.name, k.file)
			k.file.Close()
		} else {
			err = sdnotify.Unstore(k.name)
		}
		if err != nil && !s.mute.Swap(true) {
			s.p.log.Warn("the supervisor could not be told how the service is", "error", err)
		}
	}
}
