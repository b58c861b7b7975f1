//go:build linux

package worker_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/worker"
)

// What a worker of these tests is told in its environment.
const (
	envApp      = "TEST_APP"
	envListen   = "TEST_LISTEN"
	envTimeout  = "TEST_DRAIN_TIMEOUT"
	envMax      = "TEST_MAX_CONNS"
	envRotation = "TEST_TICKET_ROTATION"
)

func workerMain(app string) {
	var cfg worker.Config
	if l := os.Getenv(envListen); l != "" {
		cfg.Listen = strings.Split(l, ",")
	}
	cfg.DrainTimeout, _ = time.ParseDuration(os.Getenv(envTimeout))
	cfg.LameDuck = 10 * time.Millisecond
	cfg.MaxConns, _ = strconv.Atoi(os.Getenv(envMax))
	cfg.TicketRotation, _ = time.ParseDuration(os.Getenv(envRotation))
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	worker.Main(cfg, apps[app])
}

var apps = map[string]worker.App{
	"serve": func(ctx context.Context, w *worker.Worker) error {
		return w.Serve(ctx, "http", &http.Server{Handler: routes(w)})
	},
	// Echoes lines; "panic" is one.
	"stream": func(ctx context.Context, w *worker.Worker) error {
		return w.Serve(ctx, "http", &drain.Streams{Handler: w.StreamHandler(echoLines)})
	},
	"error":   func(context.Context, *worker.Worker) error { return errors.New("no database") },
	"nil":     func(context.Context, *worker.Worker) error { return nil },
	"panic":   func(context.Context, *worker.Worker) error { panic("no luck") },
	"unknown": func(ctx context.Context, w *worker.Worker) error { return w.Serve(ctx, "htp", &http.Server{}) },
	"taken": func(ctx context.Context, w *worker.Worker) error {
		w.Go(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if _, err := w.Listener("http"); err != nil {
			return err
		}
		return w.Serve(ctx, "http", &http.Server{})
	},
	"ignores its context": func(ctx context.Context, w *worker.Worker) error {
		w.Ready()
		select {}
	},
	"waits": func(ctx context.Context, w *worker.Worker) error {
		<-ctx.Done()
		return fmt.Errorf("end: %w", ctx.Err())
	},
	// Serves the second socket when the first one was asked.
	"two": func(ctx context.Context, w *worker.Worker) error {
		second := make(chan struct{})
		ln, err := net.Listen("tcp", "127.0.0.1:0") // to be asked before the others are ready
		if err != nil {
			return err
		}
		fmt.Println("control " + ln.Addr().String())
		go func() {
			c, err := ln.Accept()
			if err == nil {
				c.Close()
				ln.Close()
				close(second)
			}
		}()
		w.Go(func(ctx context.Context) error {
			<-second
			return w.Serve(ctx, "admin", &http.Server{Handler: routes(w)})
		})
		return w.Serve(ctx, "http", &http.Server{Handler: routes(w)})
	},
	// Ready when the control address was asked.
	"explicit": func(ctx context.Context, w *worker.Worker) error {
		w.Explicit()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		w.Go(func(context.Context) error {
			defer ln.Close()
			c, err := ln.Accept()
			if err == nil {
				c.Close()
				w.Ready()
			}
			return err
		})
		fmt.Println("control " + ln.Addr().String())
		return w.Serve(ctx, "http", &http.Server{Handler: routes(w)})
	},
	"packets": answerPackets,
	// Reads one, and answers it when the drain has begun.
	"late": func(ctx context.Context, w *worker.Worker) error {
		c, err := w.PacketConn("http")
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, 100)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		<-ctx.Done()
		if _, err := c.WriteTo(b[:n], from); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Time{}) // helps nothing
		if _, _, err := c.ReadFrom(b); !errors.Is(err, worker.ErrDraining) {
			panic(err)
		}
		return nil
	},
	// Says what it has, appends to the log, and serves the rest.
	"mixed": func(ctx context.Context, w *worker.Worker) error {
		for _, name := range append(w.Sockets(), "nothing") {
			fmt.Println(name, "is", w.Network(name))
		}
		f, err := w.File("log")
		if err != nil {
			return err
		}
		fmt.Fprintln(f, "a line")
		f.Close()
		if _, err := w.File("log"); err == nil {
			return errors.New("taken twice")
		}
		w.Go(func(ctx context.Context) error { return w.Serve(ctx, "admin", &http.Server{Handler: routes(w)}) })
		return answerPackets(ctx, w)
	},
	"environment": func(ctx context.Context, w *worker.Worker) error {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		fmt.Println(w.Name(), w.Group(), w.Slot(), w.ID(), w.Generation(), w.HasParent(), w.Sockets())
		return nil
	},
	"tickets": func(ctx context.Context, w *worker.Worker) error {
		own := &tls.Config{ServerName: "own"}
		none, cfg := w.TLS("http", nil), w.TLS("http", own)
		fmt.Println("shared", none.WrapSession != nil, cfg.WrapSession != nil, cfg != own && cfg.ServerName == "own")
		fmt.Println("environment", os.Getenv(wire.EnvTickets))
		w.OnReopen(func() error { return errors.New("no log file") })
		w.OnReopen(func() error { fmt.Println("reopened"); return nil })
		w.Ready()
		<-ctx.Done()
		return nil
	},
}

// echoLines keeps what has come of a line as its state.
func echoLines(_ context.Context, c *drain.Stream) {
	line := string(c.State())
	for r := bufio.NewReader(c); ; {
		more, err := r.ReadString('\n')
		line += more
		switch {
		case err == nil && line == "panic\n":
			panic("unlucky handler")
		case err == nil:
			fmt.Fprintf(c, "%d %s", os.Getpid(), line)
			line = ""
		case !errors.Is(err, drain.ErrLeave):
			return
		default:
			if err := c.Move([]byte(line)); !errors.Is(err, drain.ErrNotNow) {
				return
			}
		}
	}
}

// answerPackets echoes what comes to the socket "http".
func answerPackets(ctx context.Context, w *worker.Worker) error {
	c, err := w.PacketConn("http")
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Printf("control %v\n", c.LocalAddr())
	b := make([]byte, 100)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			return err
		}
	}
}

func routes(w *worker.Worker) http.Handler {
	mux := http.NewServeMux()
	on := func(path string, fn func()) {
		mux.HandleFunc(path, func(rw http.ResponseWriter, _ *http.Request) { fn(); fmt.Fprintln(rw, "ok") })
	}
	on("/{$}", func() {})
	on("/fail", func() { w.Fail(errors.New("first")); w.Fail(errors.New("second")) })
	on("/failnil", func() { w.Fail(nil) })
	on("/failbig", func() { w.Fail(errors.New(strings.Repeat("é", 1<<20))) })
	on("/panic", func() { panic("unlucky handler") })
	on("/abort", func() { panic(http.ErrAbortHandler) })
	on("/gopanic", func() { w.Go(func(context.Context) error { panic("unlucky goroutine") }) })
	on("/go", func() { w.Go(func(context.Context) error { return nil }) })
	mux.HandleFunc("/hold", func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		_ = rc.EnableFullDuplex()
		fmt.Fprintln(rw, "begin")
		_ = rc.Flush()
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			fmt.Fprintln(rw, "end")
		}
	})
	return w.Handler(mux)
}
