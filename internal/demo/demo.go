// Package demo is the app that the command serves when it is given no program: one
// to see an upgrade with, and to load in restart tests. It speaks HTTP on sockets
// that accept streams; on others it says who answers, in one packet.
package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/worker"
)

// App serves every socket that the worker has.
func App(ctx context.Context, w *worker.Worker) error {
	names := w.Sockets()
	if len(names) == 0 {
		return errors.New("no socket to serve: say one with --listen")
	}
	who := fmt.Sprintf("%s id=%d generation=%d pid=%d", w.Name(), w.ID(), w.Generation(), os.Getpid())
	handler := w.Handler(routes(w, who))
	for _, name := range names[1:] {
		w.Go(func(ctx context.Context) error { return serve(ctx, w, name, who, handler) })
	}
	return serve(ctx, w, names[0], who, handler)
}

// serve serves one socket, as fits its network.
func serve(ctx context.Context, w *worker.Worker, name, who string, h http.Handler) error {
	switch w.Network(name) {
	case "udp", "unixgram":
		return answer(w, name, who)
	case "unixpacket":
		return w.Serve(ctx, name, greeter{who})
	}
	errs := log.New(os.Stderr, "", log.Ltime) // a stack over many lines is readable
	return w.Serve(ctx, name, &http.Server{Handler: h, ErrorLog: errs})
}

func routes(w *worker.Worker, who string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(rw, who)
	})
	mux.HandleFunc("/ready", func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-w.Stopping():
			http.Error(rw, "about to stop", http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(rw, who)
		}
	})
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(millis(r))
		fmt.Fprintln(rw, who)
	})
	mux.HandleFunc("/stream", func(rw http.ResponseWriter, r *http.Request) {
		const parts = 10
		rc := http.NewResponseController(rw)
		for i := range parts {
			fmt.Fprintf(rw, "part %d of %d\n", i+1, parts)
			_ = rc.Flush()
			time.Sleep(millis(r) / parts)
		}
	})
	mux.HandleFunc("/upload", func(rw http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(rw, "%d %x\n", n, h.Sum(nil))
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("asked for at /panic") })
	mux.HandleFunc("/fail", func(rw http.ResponseWriter, r *http.Request) {
		w.Fail(errors.New("asked for at /fail"))
		fmt.Fprintln(rw, who)
	})
	mux.HandleFunc("/crash", func(rw http.ResponseWriter, r *http.Request) {
		go panic("asked for at /crash")
		<-r.Context().Done()
	})
	mux.HandleFunc("/hang", func(rw http.ResponseWriter, r *http.Request) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		fmt.Fprintln(rw, who)
	})
	var grown memory
	mux.HandleFunc("/grow", func(rw http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("mb"))
		grown.add(min(max(n, 0), 1<<16))
		fmt.Fprintln(rw, who)
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Worker", who)
		if id := r.Header.Get("X-Request-Id"); id != "" {
			rw.Header().Set("X-Request-Id", id)
		}
		mux.ServeHTTP(rw, r)
	})
}

// memory is what /grow has taken.
type memory struct {
	mu    sync.Mutex
	parts [][]byte
}

// add takes n MiB more, a page at a time.
func (m *memory) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		part := make([]byte, 1<<20)
		for i := 0; i < len(part); i += os.Getpagesize() {
			part[i] = 1 // only then is it there
		}
		m.parts = append(m.parts, part)
	}
}

// millis is the request's ms parameter, at most a minute.
func millis(r *http.Request) time.Duration {
	n, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	return time.Duration(min(max(n, 0), 60_000)) * time.Millisecond
}
