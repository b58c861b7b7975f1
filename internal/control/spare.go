package control

import (
	"errors"
	"os"
	"sync"
	"syscall"
)

// spare is a descriptor that is kept for when this process may have no other (EMFILE): who asks
// then what is the matter is to hear it.
type spare struct {
	mu    sync.Mutex
	file  *os.File
	ended bool
}

// keep keeps one again, if there is none.
func (s *spare) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil && !s.ended {
		s.file, _ = os.Open(os.DevNull) // else there is none, until one who has asked is gone
	}
}

// helps reports whether an error is for want of descriptors, and there is one more now.
func (s *spare) helps(err error) bool {
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		return false
	}
	return s.drop(false)
}

// end keeps none any more.
func (s *spare) end() { s.drop(true) }

func (s *spare) drop(ended bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = s.ended || ended
	if s.file == nil {
		return false
	}
	s.file.Close()
	s.file = nil
	return true
}
