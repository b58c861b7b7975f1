//go:build unix

package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"handover": main})
}

// TestScripts runs the command as its user does: every script of testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		// A script that fails waits for its service, which its shell does not pass the signal on to.
		Deadline: time.Now().Add(4 * time.Minute),
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return errors.Join(serveTLS(env), serveLines(env))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await": await,
			"send":  send,
			"gone":  gone,
			"load":  loadUntil,
			"crowd": crowd,
		},
	})
}

// await waits until a file contains a text: await FILE TEXT.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	b, _ := os.ReadFile(ts.MkAbs(args[0]))
	ts.Fatalf("%s does not come to contain %q:\n%s", args[0], args[1], b)
}

// send sends a signal to the process that a file names: send SIGNAL FILE.
func send(ts *testscript.TestScript, neg bool, args []string) {
	sigs := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "USR2": syscall.SIGUSR2, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}
	if neg || len(args) != 2 || sigs[args[0]] == 0 {
		ts.Fatalf("usage: send SIGNAL FILE")
	}
	ts.Check(syscall.Kill(pidIn(ts, args[1]), sigs[args[0]]))
}

// gone waits until the process that a file names has ended: gone FILE.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone FILE")
	}
	pid := pidIn(ts, args[0])
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		threads, terr := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		// As long as there are other threads, they have its sockets.
		if err != nil || terr != nil || strings.Contains(string(b), ") Z ") && len(threads) == 1 {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	ts.Fatalf("process %d goes on running", pid)
}

// pidIn is the pid that a file holds.
func pidIn(ts *testscript.TestScript, file string) int {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(file)))
	if err != nil || pid <= 0 {
		ts.Fatalf("%s does not hold a pid", file)
	}
	return pid
}

// serveLines gives scripts a server that sends lines back, at $LINES, and an address at which
// no datagrams are read, $UDP.
func serveLines(env *testscript.Env) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	env.Defer(func() { ln.Close(); conns.Wait() })
	env.Setenv("LINES", ln.Addr().String())
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer free.Close()
	env.Setenv("UDP", free.LocalAddr().String())
	return nil
}

// serveTLS gives scripts a server of HTTP/1.1, HTTP/2, gRPC's health and WebSockets over TLS:
// $HTTPS is its URL, $GRPC its address, ca.pem its certificate.
func serveTLS(env *testscript.Env) error {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		switch r.URL.Path {
		case "/echo":
		case "/grpc.health.v1.Health/Check":
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			_, _ = io.WriteString(w, "\x00\x00\x00\x00\x02\x08\x01")
			return
		default:
			fmt.Fprintln(w, r.Proto)
			return
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for {
			kind, text, err := ws.Read(r.Context())
			if err != nil || ws.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	env.Defer(srv.Close)
	env.Setenv("HTTPS", srv.URL)
	env.Setenv("GRPC", srv.Listener.Addr().String())
	pem := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), pem, 0o644)
}
