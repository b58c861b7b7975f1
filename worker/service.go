package worker

import (
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// Service is what a worker knows of the whole service.
type Service struct {
	// Ready: the service, or after an upgrade the worker's generation, is complete: every
	// group has had all its workers serving. It stays true.
	Ready bool
	// Helpers are the workers that serve in groups which others wait for (agents, and what
	// is named in After). One that has been replaced has another ID and pid.
	Helpers []Helper
}

// Helper is one worker of a group that others wait for.
type Helper struct {
	Group                string
	Slot, ID, Generation int
	Pid                  int
}

// Helper returns the one of a group's first slot, if it serves: the agent, of its group.
func (s Service) Helper(group string) (h Helper, ok bool) {
	i := slices.IndexFunc(s.Helpers, func(h Helper) bool { return h.Group == group && h.Slot == 1 })
	if i < 0 {
		return Helper{}, false
	}
	return s.Helpers[i], true
}

// Service says what this worker knows of the whole service, and returns a channel that is
// closed when that has changed. Without a parent the service is ready when this process
// serves, and has no helpers.
func (w *Worker) Service() (s Service, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.service, w.serviceChanged
}

// hearService takes in what the parent tells. That of another generation's parent, which
// this worker outlives, is about others.
func (w *Worker) hearService(sv wire.Service) {
	s := Service{Ready: sv.Ready}
	for _, h := range sv.Helpers {
		s.Helpers = append(s.Helpers, Helper(h))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Ready = s.Ready || w.service.Ready; s.Ready == w.service.Ready && slices.Equal(s.Helpers, w.service.Helpers) {
		return
	}
	w.service = s
	close(w.serviceChanged)
	w.serviceChanged = make(chan struct{})
}
