//go:build linux

package workerset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/worker"
)

// What the workers of these tests do is said in Group.Env.
const (
	// envDo is what the first worker of a slot does, or every one with "always:"
	// before it, or what the named file says with "file:" before it. Those that
	// it does not concern serve.
	envDo = "TEST_DO"
	// envDump is a directory that gets each worker's environment, by its id.
	envDump = "TEST_DUMP"
)

func do(what string) string { return envDo + "=" + what }

func workerMain() {
	who := os.Getenv(worker.Env)
	id := strings.Split(who, "/")[2]
	if dir := os.Getenv(envDump); dir != "" {
		if err := os.WriteFile(dir+"/"+id, []byte(strings.Join(os.Environ(), "\n")), 0o600); err != nil {
			panic(err)
		}
	}
	what := os.Getenv(envDo)
	if path, ok := strings.CutPrefix(what, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		what = string(b)
	} else if always, ok := strings.CutPrefix(what, "always:"); ok {
		what = always
	} else if id != "1" {
		what = "serve"
	}
	if raw := hostile[what]; raw != nil {
		raw(openChannel())
		os.Exit(3)
	}
	app := apps[what]
	if app == nil {
		app = serve
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	slog.SetDefault(log)
	reopen := func() error { _, err := fmt.Println("reopened"); return err }
	lameDuck := 200 * time.Millisecond
	if what == "demo" { // for clients that forgive nothing, however slow the machine is
		lameDuck = drain.DefaultLameDuck
	}
	worker.Main(worker.Config{LameDuck: lameDuck, Reopen: reopen, Logger: log}, app)
}

// apps are workers of the library.
var apps = map[string]worker.App{
	"demo":           demo.App,
	"error at start": func(context.Context, *worker.Worker) error { return errors.New("no database") },
	"panic at start": func(context.Context, *worker.Worker) error { panic("no luck") },
	"exit at start":  func(context.Context, *worker.Worker) error { os.Exit(7); return nil },
	"done at start":  func(context.Context, *worker.Worker) error { return nil },
	"hang at start":  func(context.Context, *worker.Worker) error { select {} },
	"may change user": func(ctx context.Context, w *worker.Worker) error {
		fmt.Println("may change user:", launch.MayChangeUser())
		return serve(ctx, w)
	},
	"prints": func(ctx context.Context, w *worker.Worker) error {
		fmt.Println("not for you")
		return serve(ctx, w)
	},
	// Not ready, but otherwise well behaved.
	"slow start": func(ctx context.Context, _ *worker.Worker) error {
		fmt.Println("starts slowly")
		<-ctx.Done()
		return ctx.Err()
	},
}

// serve is an app that fails in every way, when asked.
func serve(ctx context.Context, w *worker.Worker) error {
	end := make(chan error, 1)
	serving, done := context.WithCancel(ctx)
	defer done()
	mux := http.NewServeMux()
	on := func(path string, fn func()) {
		mux.HandleFunc(path, func(rw http.ResponseWriter, r *http.Request) {
			fn()
			fmt.Fprintln(rw, os.Getpid())
		})
	}
	on("/", func() {})
	on("/half", func() { fmt.Print("half a ") })
	on("/fail", func() { w.Fail(errors.New("failed on request")) })
	on("/twice", func() { w.Fail(errors.New("the first of two")); w.Fail(errors.New("the second of two")) })
	on("/panic", func() { panic("handler without luck") })
	on("/gopanic", func() { w.Go(func(context.Context) error { panic("goroutine without luck") }) })
	on("/goerror", func() { w.Go(func(context.Context) error { return errors.New("goroutine gave up") }) })
	on("/error", func() { end <- errors.New("app gave up") })
	on("/done", done)
	on("/exit", func() { os.Exit(5) })
	on("/crash", func() {
		go panic("nobody catches this")
		select {}
	})
	mux.HandleFunc("/ready", func(rw http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(os.Getenv("TEST_READY_FILE")); err != nil {
			http.Error(rw, "not yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/hold", func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		_ = rc.EnableFullDuplex()
		fmt.Fprintln(rw, os.Getpid())
		_ = rc.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	usr := make(chan os.Signal, 1)
	signal.Notify(usr, syscall.SIGUSR1)
	served := make(chan error, 1)
	go func() {
		served <- w.Serve(serving, "http", &http.Server{Handler: w.Handler(mux), ErrorLog: slog.NewLogLogger(slog.Default().Handler(), 0)})
	}()
	for {
		select {
		case err := <-end:
			return err
		case err := <-served:
			return err
		case <-usr:
			w.Fail(errors.New("failed on a signal"))
		}
	}
}

// channel is what a program has that speaks to the parent by hand.
type channel struct{ *os.File }

func openChannel() channel {
	fd, err := strconv.Atoi(os.Getenv(wire.Env))
	if err != nil {
		panic(err)
	}
	return channel{os.NewFile(uintptr(fd), "channel")}
}

func (c channel) say(text string) {
	if _, err := c.WriteString(text); err != nil {
		os.Exit(4)
	}
}

// state says one, whole or in part.
func state(phase wire.Phase) string {
	b, err := json.Marshal(wire.State{Cmd: wire.CmdState, Version: wire.Version, Pid: os.Getpid(), Phase: phase})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

// untilEOF reads until the parent closes the channel.
func (c channel) untilEOF() { _, _ = io.Copy(io.Discard, c) }

// sendFDs sends text with n descriptors.
func (c channel) sendFDs(text string, n int) {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = 1
	}
	rc, err := c.SyscallConn()
	if err != nil {
		panic(err)
	}
	_ = rc.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte(text), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return err != unix.EAGAIN
	})
	if err != nil {
		os.Exit(4)
	}
}

// hostile are programs that misuse the channel, or anything else.
var hostile = map[string]func(channel){
	"not JSON":            func(c channel) { c.say(state(wire.PhaseReady) + "hello\n"); c.untilEOF() },
	"not JSON at start":   func(c channel) { c.say("hello\n"); c.untilEOF() },
	"wrong types":         func(c channel) { c.say(`{"cmd":"NODE_HANDOVER_STATE","pid":"me"}` + "\n"); c.untilEOF() },
	"line over the cap":   func(c channel) { c.say(state(wire.PhaseReady)); endless(c) },
	"descriptors":         func(c channel) { c.say(state(wire.PhaseReady)); c.sendFDs("{}\n", 3); c.untilEOF() },
	"descriptors, no end": func(c channel) { c.say(state(wire.PhaseReady)); manyFDs(c) },
	"half a line, killed": func(c channel) { c.say(state(wire.PhaseReady) + `{"cmd":`); _ = unix.Kill(os.Getpid(), unix.SIGKILL) },
	// Lives on without a channel, and does not mind SIGTERM.
	"closes its channel": func(c channel) {
		signal.Ignore(syscall.SIGTERM)
		c.say(state(wire.PhaseReady))
		c.Close()
		select {}
	},
	// Valid, and none of the parent's business.
	"other messages": func(c channel) {
		c.say(`"ready"` + "\n[1]\n{}\n" + `{"cmd":7}` + "\n" + `{"cmd":"NODE_HANDOVER_LATER"}` + "\n" + state(wire.PhaseReady))
		c.untilEOF()
	},
	// Dies, and leaves somebody behind who holds its channel.
	"leaves a child": func(c channel) {
		c.say(state(wire.PhaseReady))
		env := append(os.Environ(), do("always:holds the channel"), wire.Env+"=3")
		p, err := os.StartProcess("/proc/self/exe", []string{"child"}, &os.ProcAttr{
			Env: launch.Environ(env), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, c.File},
		})
		if err != nil {
			panic(err)
		}
		fmt.Printf("child %d\n", p.Pid)
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	},
	"holds the channel": channel.untilEOF,
	"deaf": func(c channel) { // ready, but obeys nothing
		signal.Ignore(syscall.SIGTERM)
		c.say(state(wire.PhaseReady))
		select {}
	},
	// Says half a state, and the other half when it gets SIGUSR1.
	"half a line": func(c channel) {
		usr := make(chan os.Signal, 1)
		signal.Notify(usr, syscall.SIGUSR1)
		s := state(wire.PhaseReady)
		c.say(s[:len(s)/2])
		<-usr
		c.say(s[len(s)/2:])
		c.untilEOF()
	},
	"absurd numbers": func(c channel) {
		c.say(`{"cmd":"NODE_HANDOVER_STATE","phase":"ready","active":-5,"served":-1,"cut":-100,"slot":99,"pid":1}` + "\n")
		c.untilEOF()
	},
}

func endless(c channel) {
	junk := bytes.Repeat([]byte("x"), 64<<10)
	for {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
}

// manyFDs sends descriptors and never a whole line.
func manyFDs(c channel) {
	for {
		c.sendFDs("x", 100)
	}
}
