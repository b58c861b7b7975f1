package worker

import (
	"crypto/tls"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/tickets"
)

// sharing is what a worker shares of its session tickets.
type sharing struct {
	file *os.File // inherited; nil: none

	mu   sync.Mutex
	keys *tickets.Keys // nil until somebody wants them
}

// inheritedTickets are the keys that a parent has passed.
func (w *Worker) inheritedTickets() error {
	v := os.Getenv(wire.EnvTickets)
	os.Unsetenv(wire.EnvTickets)
	if v == "" {
		return nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return fmt.Errorf("%s=%q: not a descriptor number", wire.EnvTickets, v)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("%s=%q: descriptor %d is not open: %w", wire.EnvTickets, v, fd, err)
	}
	syscall.CloseOnExec(fd)
	w.tickets.file = os.NewFile(uintptr(fd), "tickets")
	return nil
}

// TLS returns a copy of cfg whose session tickets are good in all workers of the group, in
// those that come after them, and in later generations: a client that comes back resumes
// its session with whichever it reaches. It is for http.Server.ServeTLS, or any other
// server that takes a tls.Config; package tickets says what it does to it. How long keys
// live, Config.TicketRotation says. Without a parent, tickets are good in this process.
//
// The name, such as the socket's, keeps configs apart: give those of different ClientAuth or
// ClientCAs different names, or clients of the one are clients of the other.
func (w *Worker) TLS(name string, cfg *tls.Config) *tls.Config {
	s := &w.tickets
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil && s.file == nil && w.cfg.TicketRotation > 0 {
		var err error
		if s.file, err = tickets.File(); err != nil {
			w.log.Error("session ticket keys are crypto/tls's own: they rotate every 24 hours", "error", err)
		}
	}
	if s.keys == nil && s.file != nil {
		// There is no error with this configuration.
		s.keys, _ = tickets.New(s.file, tickets.Config{Every: w.cfg.TicketRotation, Logger: w.log})
		s.file = nil
	}
	if s.keys != nil {
		return s.keys.TLS(name, cfg)
	}
	if cfg = cfg.Clone(); cfg == nil {
		cfg = &tls.Config{}
	}
	return cfg
}

func (s *sharing) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	if s.keys != nil {
		s.keys.Close()
	}
}
