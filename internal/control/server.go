package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Service is what a Server asks.
type Service interface {
	Status(context.Context) (Status, error)
	Ready(context.Context) (ready bool, why string)
	// Upgrade takes a watcher over: whatever becomes of the upgrade, the watcher is
	// told, here or by the next parent. Rollback does so with the way back.
	Upgrade(*Watcher, Wait)
	Rollback(*Watcher, Wait)
	// Act takes a watcher over, too. The wish is a valid one.
	Act(Wish, *Watcher)
	Records
}

// Server answers on a control socket. Its methods may be called from any goroutine.
type Server struct {
	http http.Server
	mux  *http.ServeMux
	what string // it answers on, for people
	// bound keeps as few connected as the parent can do with.
	bound func(net.Listener) net.Listener
	grace time.Duration // for answers that are being written, at the end
	log   *slog.Logger
	wg    sync.WaitGroup
	mu    sync.Mutex
	ln    net.Listener
	// readers: whoever may connect may read, and the service's user and root act.
	readers bool
	streams chan struct{} // a place for each

	closing context.Context // done when Close is called
	close   context.CancelFunc
}

// NewServer answers its owner on a service's control socket.
func NewServer(s Service, log *slog.Logger) *Server {
	srv := newServer(s, "control socket", log)
	srv.streams = make(chan struct{}, maxStreams)
	srv.answerRecords(srv.mux, s)
	srv.mux.HandleFunc("POST /v1/upgrade", srv.watched(s.Upgrade))
	srv.mux.HandleFunc("POST /v1/rollback", srv.watched(s.Rollback))
	srv.acts(srv.mux, s)
	srv.http.Handler = srv.access(bodiless(srv.mux))
	srv.http.WriteTimeout = answerTime
	srv.http.MaxHeaderBytes = maxHeader
	srv.http.ConnContext = withPeer
	srv.bound = func(ln net.Listener) net.Listener { return limit(ln) }
	return srv
}

// newServer answers questions, which everybody may ask who reaches it.
func newServer(s Service, what string, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	srv := &Server{mux: mux, what: what, grace: time.Second, log: log}
	srv.closing, srv.close = context.WithCancel(context.Background())
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		st, err := s.Status(r.Context())
		if err != nil {
			again(w, err)
			return
		}
		answer(w, st)
	})
	mux.HandleFunc("GET /v1/ready", func(w http.ResponseWriter, r *http.Request) {
		if ready, why := s.Ready(r.Context()); !ready {
			refuse(w, http.StatusServiceUnavailable, errors.New(why))
		}
	})
	srv.http = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       requestTime,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return srv
}

// Handle adds what is asked with a pattern of http.ServeMux. Call it before Serve.
func (s *Server) Handle(pattern string, h http.HandlerFunc) { s.mux.HandleFunc(pattern, h) }

// watched answers by a stream of events.
func (s *Server) watched(act func(*Watcher, Wait)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		wait := WaitProbation
		switch said := Wait(r.FormValue("wait")); said {
		case "", WaitProbation:
		case WaitServe:
			wait = said
		default:
			refuse(w, http.StatusBadRequest, fmt.Errorf("wait=%s: %s or %s", said, WaitServe, WaitProbation))
			return
		}
		s.stream(w, func(watcher *Watcher) { act(watcher, wait) })
	}
}

// Serve answers on ln, which it owns, until Pause or Close.
func (s *Server) Serve(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ln = ln
	s.wg.Go(func() {
		if err := s.http.Serve(s.bound(ln)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("questions are not answered any more", "on", s.what, "error", err)
		}
	})
}

// Pause accepts no more: whoever comes waits in the socket's queue for the next
// parent, or for Serve.
func (s *Server) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		s.ln.Close()
		s.ln = nil
	}
}

// Close accepts no more, and waits a moment for answers that are being written.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	s.Pause()
	s.close()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	s.wg.Wait()
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}
