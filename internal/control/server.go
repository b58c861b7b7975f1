package control

import (
	"bufio"
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
}

// Server answers on a control socket. Its methods may be called from any goroutine.
type Server struct {
	http http.Server
	mux  *http.ServeMux
	what string // it answers on, for people
	// limit, if set, is how many may be connected at a time.
	limit int
	grace time.Duration // for answers that are being written, at the end
	log   *slog.Logger
	wg    sync.WaitGroup
	mu    sync.Mutex
	ln    net.Listener
}

// NewServer answers its owner on a service's control socket.
func NewServer(s Service, log *slog.Logger) *Server {
	srv := newServer(s, "control socket", log)
	srv.mux.HandleFunc("POST /v1/upgrade", watched(s.Upgrade))
	srv.mux.HandleFunc("POST /v1/rollback", watched(s.Rollback))
	srv.http.Handler = mine(srv.mux)
	srv.http.ConnContext = withPeer
	return srv
}

// newServer answers questions, which everybody may ask who reaches it.
func newServer(s Service, what string, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	srv := &Server{mux: mux, what: what, grace: time.Second, log: log}
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		st, err := s.Status(r.Context())
		if err != nil {
			// Whoever replaces this process has the answer.
			w.Header().Set("Retry-After", "0")
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(st)
	})
	mux.HandleFunc("GET /v1/ready", func(w http.ResponseWriter, r *http.Request) {
		if ready, why := s.Ready(r.Context()); !ready {
			refuse(w, http.StatusServiceUnavailable, errors.New(why))
		}
	})
	srv.http = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return srv
}

// Handle adds what is asked with a pattern of http.ServeMux. Call it before Serve.
func (s *Server) Handle(pattern string, h http.HandlerFunc) { s.mux.HandleFunc(pattern, h) }

// watched answers by a stream of events.
func watched(act func(*Watcher, Wait)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// The connection leaves HTTP here, so that nothing may be left to read on it.
		if r.ContentLength != 0 {
			refuse(w, http.StatusBadRequest, errors.New("this takes no body: send none"))
			return
		}
		wait := WaitProbation
		switch said := Wait(r.FormValue("wait")); said {
		case "", WaitProbation:
		case WaitServe:
			wait = said
		default:
			refuse(w, http.StatusBadRequest, fmt.Errorf("wait=%s: %s or %s", said, WaitServe, WaitProbation))
			return
		}
		watcher, err := hijack(w)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		act(watcher, wait)
	}
}

// Serve answers on ln, which it owns, until Pause or Close.
func (s *Server) Serve(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 {
		ln = limit(ln, s.limit)
	}
	s.ln = ln
	s.wg.Go(func() {
		if err := s.http.Serve(ln); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
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
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	s.wg.Wait()
}

type peerKey struct{}

// withPeer looks who has connected.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, checkPeer(c))
}

// mine refuses all but the service's user and root.
func mine(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err, _ := r.Context().Value(peerKey{}).(error); err != nil {
			refuse(w, http.StatusForbidden, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

// hijack makes a watcher of a request's connection.
func hijack(w http.ResponseWriter) (*Watcher, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if rw.Reader.Buffered() > 0 {
		conn.Close()
		return nil, errors.New("a request with more behind it")
	}
	// The end of the connection is the end of the answer, so that whoever writes
	// last, in whichever process, has nothing to know about it.
	bw := bufio.NewWriter(conn)
	fmt.Fprint(bw, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n")
	if err := bw.Flush(); err != nil {
		conn.Close()
		return nil, err
	}
	return newWatcher(conn), nil
}
