package handover_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is an app whose http.Server its user has configured, as much as can be. It
// checks in each request what was configured.

type hookKey string

// configuredServer answers with who it is in X-Worker, with who the client is in X-Peer,
// with the socket's options in X-Options, and in X-Hooks "ok" if the server's hooks know of
// the connection. The channel is closed when the server's Shutdown has called what it is to
// call, which the end of a process does not wait for.
func configuredServer(who string) (srv *http.Server, shut <-chan struct{}) {
	var known sync.Map                                    // net.Conn: what ConnState has last seen
	idle, _ := time.ParseDuration(os.Getenv("TEST_IDLE")) // 0: as long as a header
	header, err := time.ParseDuration(os.Getenv("TEST_HEADER"))
	if err != nil {
		header = time.Minute
	}
	srv = &http.Server{
		ReadHeaderTimeout: header, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: idle,
		MaxHeaderBytes: 4096,
		Protocols:      new(http.Protocols),
		BaseContext: func(ln net.Listener) context.Context {
			return context.WithValue(context.Background(), hookKey("base"), ln.Addr().String())
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if strings.Contains(who, "generation=1 ") { // others have to find it so
				prefer(c)
			}
			return context.WithValue(ctx, hookKey("conn"), c)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			switch last, _ := known.Swap(c, s); {
			case s == http.StateNew && last != nil, s != http.StateNew && last == nil:
				slog.Error("ConnState is wrong", "was", last, "is", s)
			case s == http.StateClosed || s == http.StateHijacked:
				known.Delete(c)
			}
		},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	called := make(chan struct{})
	srv.RegisterOnShutdown(func() { close(called) })
	routes := configuredRoutes(who)
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Worker", who)
		h.Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		h.Set("X-Peer", r.RemoteAddr)
		c, _ := r.Context().Value(hookKey("conn")).(net.Conn)
		h.Set("X-Options", options(c))
		h.Set("X-Hooks", "ok")
		state, _ := known.Load(c)
		base, _ := r.Context().Value(hookKey("base")).(string)
		// In HTTP/2 the requests of a connection change nothing about it.
		if r.ProtoMajor < 2 && state != http.StateActive || base == "" {
			h.Set("X-Hooks", fmt.Sprintf("connection %v, base context %q", state, base))
		}
		routes.ServeHTTP(w, r)
	})
	return srv, called
}

func configuredRoutes(who string) http.Handler {
	mux := http.NewServeMux()
	pause := func(r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(n) * time.Millisecond)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, who) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		pause(r)
		fmt.Fprintln(w, who)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	// Answers before it has read the request.
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "early") })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, os.Args[0]) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		pause(r)
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer c.Close()
		if err := echo(rw, who); err != nil && !errors.Is(err, io.EOF) {
			slog.Error("echo", "err", err)
		}
	})
	return mux
}

// echo says every line that comes, and who says it.
func echo(rw *bufio.ReadWriter, who string) error {
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	for {
		if err := rw.Flush(); err != nil {
			return err
		}
		line, err := rw.ReadString('\n')
		if err != nil {
			return err
		}
		fmt.Fprintf(rw, "%s: %s", who, line)
	}
}

// prefer sets options as nobody else does.
func prefer(c net.Conn) {
	_ = withFD(c, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	})
}

// options are some of the socket's, or why they are not known.
func options(c net.Conn) (s string) {
	err := withFD(c, func(fd int) {
		for _, o := range []struct{ level, name int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_NODELAY},
		} {
			n, err := unix.GetsockoptInt(fd, o.level, o.name)
			s += fmt.Sprint(n, err, " ")
		}
	})
	if err != nil {
		return err.Error()
	}
	return s
}

func withFD(c net.Conn, do func(fd int)) error {
	if wrapper, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = wrapper.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}
