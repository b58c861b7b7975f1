//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"github.com/oklog/run"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/upgrader"
)

// This program is also the servers in Go.
const (
	envServer = "COMPARE_SERVER"
	envAddr   = "COMPARE_ADDR"
)

func serverMain(mode string) {
	addr := os.Getenv(envAddr)
	var err error
	switch mode {
	case "handover":
		handover.Main(handover.Config{Name: "compare", Listen: []string{"http=tcp://" + addr}, Workers: 2,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}, demo.App)
	case "solo":
		err = serveSolo(addr)
	case "tableflip":
		err = serveTableflip(addr)
	default:
		err = fmt.Errorf("%s=%s: no such server", envServer, mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveSolo is a service of one process, by this module's parts.
func serveSolo(addr string) error {
	up, err := upgrader.New(upgrader.Config{PIDFile: "pid"})
	if err != nil {
		return err
	}
	ln, err := up.Listen("http", "tcp", addr)
	if err != nil {
		return err
	}
	var g run.Group
	g.Add(drain.Actor(&http.Server{Handler: app()}, ln, drain.Config{Successor: up}))
	g.Add(up.Actor())
	g.Add(signals.Actor(context.Background(), signals.Map{syscall.SIGHUP: up.Upgrade, syscall.SIGTERM: signals.Stop}))
	if err := g.Run(); err != nil && !errors.Is(err, signals.ErrStop) {
		return err
	}
	return nil
}

// serveTableflip does in order what tableflip's documentation does: upgrade at HUP, say that
// it is ready when it serves, and when it is to exit, shut down within 30 s.
func serveTableflip(addr string) error {
	up, err := tableflip.New(tableflip.Options{PIDFile: "pid"})
	if err != nil {
		return err
	}
	defer up.Stop()
	hup, term := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		for range hup {
			if err := up.Upgrade(); err != nil {
				fmt.Fprintln(os.Stderr, "upgrade:", err)
			}
		}
	}()
	go func() {
		<-term
		up.Stop()
	}()
	ln, err := up.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: app()}
	go func() { _ = srv.Serve(ln) }()
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Exit()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// startBackend is the server behind proxies, in this process.
func startBackend() (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() { _ = http.Serve(ln, app()) }()
	return ln, nil
}

// app is what every peer serves.
func app() http.Handler {
	pause := func(r *http.Request) time.Duration {
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		return time.Duration(ms) * time.Millisecond
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(pause(r))
		fmt.Fprintln(w, "slow")
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for range 10 {
			fmt.Fprintln(w, "part")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(pause(r) / 10)
		}
	})
	who := strconv.Itoa(os.Getpid())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Worker", who)
		mux.ServeHTTP(w, r)
	})
}
