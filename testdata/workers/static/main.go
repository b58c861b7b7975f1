// Command static is a worker in plain Go, that knows nothing of handover: it takes
// its socket as systemd hands one over, and at TERM it finishes what it has.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
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
	// http.Server.Shutdown closes connections that were accepted and not read yet.
	// So the listener is closed alone, and those that are open are waited for.
	var open sync.WaitGroup
	srv.ConnState = func(_ net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		log.Print("draining")
		srv.SetKeepAlivesEnabled(false)
		ln.Close()
	}()
	log.Print("serving")
	if err := srv.Serve(ln); !errors.Is(err, net.ErrClosed) {
		log.Fatal(err)
	}
	open.Wait()
}
