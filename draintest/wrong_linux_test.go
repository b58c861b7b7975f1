package draintest_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/run"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/upgrader"
)

// The test binary is a server, too, that is restarted by HUP in a way that DRAINTEST_SERVER
// says: one that is right, and many that are wrong in one thing.

const envServer = "DRAINTEST_SERVER"

func serverMain(mode string) {
	addr := os.Getenv("DRAINTEST_ADDR")
	if mode == "right" {
		handover.Main(handover.Config{
			Name: "right", Listen: []string{"http=tcp://" + addr}, Workers: 2,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		}, demo.App)
	}
	var err error
	if mode == "solo" {
		err = serveSolo(addr)
	} else if os.Getenv("DRAINTEST_CHILD") != "" {
		err = serveWrong(mode, addr)
	} else {
		err = superviseWrong(mode, addr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveSolo is a service of one process, which says its pid again and again.
func serveSolo(addr string) error {
	up, err := upgrader.New(upgrader.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ln, err := up.Listen("http", "tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for ; ; time.Sleep(100 * time.Millisecond) {
			fmt.Println(os.Getpid())
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	var g run.Group
	g.Add(drain.Actor(&http.Server{Handler: wrongHandler("", new(atomic.Bool))}, ln, drain.Config{Successor: up, Logger: quiet}))
	g.Add(up.Actor())
	g.Add(signals.Actor(context.Background(), signals.Map{syscall.SIGHUP: up.Upgrade, syscall.SIGTERM: signals.Stop}, signals.Logger(quiet)))
	if err := g.Run(); err != nil && !errors.Is(err, signals.ErrStop) {
		return err
	}
	return nil
}

// superviseWrong holds the socket, and at each HUP changes one child for another.
func superviseWrong(mode, addr string) error {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	var held *os.File
	if mode != "refuses" && mode != "resets" {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		if held, err = ln.(*net.TCPListener).File(); err != nil {
			return err
		}
		ln.Close()
	}
	child, err := startChild(held)
	if err != nil {
		return err
	}
	var left []*exec.Cmd
	for round := 1; ; round++ {
		if sig := <-signals; sig == syscall.SIGTERM {
			for _, c := range append(left, child) {
				_ = c.Process.Signal(syscall.SIGTERM)
				_ = c.Wait()
			}
			return nil
		}
		before := child
		switch mode {
		case "ignores":
			continue
		case "helper": // of a moment
			if err := exec.Command("sleep", "0.3").Run(); err != nil {
				return err
			}
			continue
		case "dies":
			if round == 3 {
				_ = child.Process.Kill()
				return errors.New("no memory")
			}
		case "leaks":
			if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return err
			}
		case "refuses":
			_ = before.Process.Signal(syscall.SIGTERM)
			_ = before.Wait()
			time.Sleep(5 * time.Millisecond)
		}
		if child, err = startChild(held); err != nil {
			return err
		}
		switch mode {
		case "stays":
			left = append(left, before)
		case "refuses":
		case "zombie":
			_ = before.Process.Signal(syscall.SIGTERM)
		default:
			_ = before.Process.Signal(syscall.SIGTERM)
			_ = before.Wait()
		}
	}
}

// startChild starts a child, and returns when it serves.
func startChild(held *os.File) (*exec.Cmd, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "DRAINTEST_CHILD=1")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{w}, os.Stderr
	if held != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, held)
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, r)
	return cmd, nil
}

// serveWrong is a child.
func serveWrong(mode, addr string) error {
	ready := os.NewFile(3, "ready")
	var ln net.Listener
	var err error
	switch mode {
	case "refuses":
		ln, err = net.Listen("tcp", addr)
	case "resets": // each child has a socket of its own, and a queue
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return errors.Join(err, cerr)
		}}
		ln, err = lc.Listen(context.Background(), "tcp", addr)
	default:
		held := os.NewFile(4, "listener")
		ln, err = net.FileListener(held)
		held.Close() // or the garbage collector does, in one child and not in the next, and hides a leak
	}
	if err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	var draining atomic.Bool
	echoes := newEchoes()
	mux := http.NewServeMux()
	mux.Handle("/", wrongHandler(mode, &draining))
	mux.HandleFunc("/echo", echoes.serve)
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	switch mode {
	case "resets":
		ln = lazy{ln, &draining}
	case "leaves":
		certified := httptest.NewTLSServer(nil) // all that have it have the same one
		srv.TLSConfig = &tls.Config{Certificates: certified.TLS.Certificates}
		certified.Close()
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if srv.TLSConfig != nil {
			_ = srv.ServeTLS(ln, "", "")
		} else {
			_ = srv.Serve(ln)
		}
	}()
	ready.Close()
	<-term
	draining.Store(true)
	switch mode {
	case "twice", "crosses", "unready":
		time.Sleep(300 * time.Millisecond) // some requests come here
	}
	switch mode {
	case "resets": // who waits in the queue
		time.Sleep(200 * time.Millisecond)
		ln.Close()
		time.Sleep(200 * time.Millisecond) // those that were accepted are answered
	case "cuts":
		ln.Close()
		time.Sleep(10 * time.Millisecond)
	default:
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ln.Close()
		<-served // what has been accepted is known to the server now, and Shutdown waits for it
		echoes.drain()
		_ = srv.Shutdown(ctx)
		echoes.wait()
	}
	return nil
}

// lazy is a listener that accepts one more when it drains, and then no more.
type lazy struct {
	net.Listener
	draining *atomic.Bool
}

func (l lazy) Accept() (net.Conn, error) {
	if l.draining.Load() {
		select {}
	}
	return l.Listener.Accept()
}

func wrongHandler(mode string, draining *atomic.Bool) http.Handler {
	pause := func(r *http.Request) {
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch mode {
		case "twice":
			if draining.Load() {
				twice(w, r)
				return
			}
		case "crosses":
			if draining.Load() {
				w.Header().Set("X-Request-Id", "of-another")
			}
		case "unready":
			if draining.Load() {
				http.Error(w, "draining", http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "hello")
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { pause(r); fmt.Fprintln(w, "slow") })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		fmt.Fprintln(w, "begin")
		_ = http.NewResponseController(w).Flush()
		pause(r)
		fmt.Fprintln(w, "end")
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
		mux.ServeHTTP(w, r)
	})
}

// twice answers one request by two answers.
func twice(w http.ResponseWriter, r *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Request-Id: %s\r\nContent-Length: 0\r\n\r\n", r.Header.Get("X-Request-Id"))
	_, _ = io.WriteString(c, strings.Repeat(answer, 2))
}
