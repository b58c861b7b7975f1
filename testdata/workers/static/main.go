// Command static is a worker in plain Go, that knows nothing of handover: it takes
// its socket as systemd hands one over, and at TERM it finishes what it has.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		log.Fatalf("LISTEN_PID is %s, LISTEN_FDS %s", os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"))
	}
	ln, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		log.Fatal(err)
	}
	who := fmt.Sprintf("static %s pid=%d", os.Getenv("HANDOVER_WORKER"), os.Getpid())
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		hash := sha256.New()
		n, _ := io.Copy(hash, r.Body)
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		rw.Header().Set("X-Worker", who)
		if id := r.Header.Get("X-Request-Id"); id != "" {
			rw.Header().Set("X-Request-Id", id)
		}
		if r.Method == http.MethodPost {
			fmt.Fprintf(rw, "%d %x\n", n, hash.Sum(nil))
			return
		}
		fmt.Fprintln(rw, who)
	})}
	drained := make(chan struct{})
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		defer close(drained)
		<-term
		log.Print("draining")
		_ = srv.Shutdown(context.Background())
	}()
	log.Print("serving")
	if err := srv.Serve(ln); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-drained
}
