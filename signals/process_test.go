package signals

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/oklog/run"
	"golang.org/x/sys/unix"
)

// upgrade is an action that tells that it was run.
func upgrade(context.Context) error {
	event("upgrade")
	return nil
}

// scenarios are the programs that the tests send signals to.
var scenarios = map[string]func(){
	// A program as in the package's documentation, with a server that stops as
	// soon as it is told to.
	"group": func() {
		var g run.Group
		g.Add(Actor(context.Background(), Map{
			syscall.SIGHUP:  upgrade,
			syscall.SIGTERM: Stop,
			syscall.SIGINT:  Stop,
			syscall.SIGUSR1: func(context.Context) error {
				event("failing")
				return errors.New("not today")
			},
		}))
		server(&g)
		event("ready")
		end(g.Run())
	},
	// A program that goes on to print when nobody reads.
	"pipe": func() {
		r, w, err := os.Pipe()
		if err == nil {
			err = unix.Dup2(int(w.Fd()), 2)
		}
		if err != nil {
			panic(err)
		}
		Actor(context.Background(), Map{syscall.SIGTERM: Stop})
		r.Close()
		if _, err = os.Stderr.WriteString("a line of the log\n"); errors.Is(err, syscall.EPIPE) {
			event("nobody reads")
		}
	},
	// A program whose server drains until its stdin is closed.
	"slow": func() {
		var g run.Group
		g.Add(Actor(context.Background(), Map{syscall.SIGHUP: upgrade, syscall.SIGTERM: Stop}, Logger(messages)))
		slow(&g)
		event("ready")
		end(g.Run())
	},
	// One that ends its group by itself, and drains until its stdin is closed.
	"upgraded": func() {
		var g run.Group
		g.Add(Actor(context.Background(), Map{syscall.SIGHUP: upgrade, syscall.SIGTERM: Stop}, Logger(messages)))
		g.Add(func() error { return errors.New("upgraded") }, func(error) {})
		slow(&g)
		end(g.Run())
	},
	"own at once": func() {
		var g run.Group
		g.Add(Actor(context.Background(), Map{syscall.SIGTERM: Stop}, AtOnce(func(sig os.Signal) {
			event("at once: %s", name(sig))
			os.Exit(7)
		})))
		slow(&g)
		event("ready")
		end(g.Run())
	},
	// Signals arrive between Actor and execute.
	"early": func() {
		execute, _ := Actor(context.Background(), Map{syscall.SIGHUP: upgrade, syscall.SIGTERM: Stop})
		event("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
		end(execute())
	},
	// After ctx is done, TERM kills again.
	"released": func() {
		ctx, release := context.WithCancel(context.Background())
		execute, _ := Actor(ctx, Map{syscall.SIGTERM: Stop})
		release()
		event("%v", execute())
		bufio.NewReader(os.Stdin).ReadString('\n')
	},
}

func server(g *run.Group) {
	stop := make(chan struct{})
	g.Add(func() error { <-stop; return nil }, func(error) { close(stop) })
}

func slow(g *run.Group) {
	stop := make(chan struct{})
	g.Add(func() error {
		<-stop
		event("draining")
		bufio.NewReader(os.Stdin).ReadString('\n')
		return nil
	}, func(error) { close(stop) })
}

func end(err error) { event("end: %v, stop %t", err, errors.Is(err, ErrStop)) }

// messages makes events of the messages that are logged.
var messages = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
	ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key != slog.MessageKey {
			return slog.Attr{}
		}
		return a
	},
}))

func TestSignals(t *testing.T) {
	t.Parallel()
	p := start(t, "group", nil, nil)
	p.expect("ready")
	for range 3 {
		p.kill(syscall.SIGHUP)
		p.expect("upgrade")
	}
	p.kill(syscall.SIGUSR1)
	p.expect("failing")
	p.kill(syscall.SIGHUP)
	p.expect("upgrade")
	p.kill(syscall.SIGTERM)
	p.expect("end: signals: stopped by SIGTERM, stop true")
	if got := p.status(); got != 0 {
		t.Errorf("status %d", got)
	}
	if !strings.Contains(p.stderr.String(), "not today") {
		t.Errorf("the failed action was not logged: %s", p.stderr)
	}
}

func TestSecondStopSignal(t *testing.T) {
	t.Parallel()
	p := start(t, "slow", nil, nil)
	p.expect("ready")
	p.kill(syscall.SIGTERM)
	p.expect("draining")
	p.kill(syscall.SIGHUP) // not lethal
	p.expect(`msg="signal ignored: the process is about to end"`)
	p.kill(syscall.SIGINT) // not mapped
	p.expect(`msg="second stop signal: stopping at once"`)
	if got := p.status(); got != 128+int(syscall.SIGINT) {
		t.Errorf("status %d", got)
	}
}

func TestOwnAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, "own at once", nil, nil)
	p.expect("ready")
	p.kill(syscall.SIGTERM)
	p.expect("draining")
	p.kill(syscall.SIGINT)
	p.expect("at once: SIGINT")
	if got := p.status(); got != 7 {
		t.Errorf("status %d", got)
	}
}

// An old process that drains after its upgrade outlives a HUP and the TERM that
// systemd sends to every process of a unit.
func TestDrainingAfterUpgrade(t *testing.T) {
	t.Parallel()
	p := start(t, "upgraded", nil, nil)
	p.expect("draining")
	p.kill(syscall.SIGHUP)
	p.expect(`msg="signal ignored: the process is about to end"`)
	p.kill(syscall.SIGTERM)
	p.expect(`msg="stop signal: the process is about to end, another INT or TERM ends it at once"`)
	p.in.Close()
	p.expect("end: upgraded, stop false")
	if got := p.status(); got != 0 {
		t.Errorf("status %d", got)
	}
}

func TestBeforeExecute(t *testing.T) {
	t.Parallel()
	t.Run("an action waits", func(t *testing.T) {
		t.Parallel()
		p := start(t, "early", nil, nil)
		p.expect("ready")
		p.kill(syscall.SIGHUP)
		fmt.Fprintln(p.in)
		p.expect("upgrade")
	})
	t.Run("a stop ends it, a second one at once", func(t *testing.T) {
		t.Parallel()
		p := start(t, "early", nil, nil)
		p.expect("ready")
		p.kill(syscall.SIGTERM)
		fmt.Fprintln(p.in)
		p.expect("end: signals: stopped by SIGTERM, stop true")
	})
}

// TestPipe: a log without a reader does not end the process.
func TestPipe(t *testing.T) {
	t.Parallel()
	start(t, "pipe", nil, nil).expect("nobody reads")
}

func TestRelease(t *testing.T) {
	t.Parallel()
	p := start(t, "released", nil, nil)
	p.expect("context canceled")
	p.kill(syscall.SIGTERM)
	if got := p.status(); got != 128+int(syscall.SIGTERM) {
		t.Errorf("status %d, want that of a killed process", got)
	}
}

func TestQuitStaysGos(t *testing.T) {
	t.Parallel()
	p := start(t, "group", nil, nil)
	p.expect("ready")
	p.kill(syscall.SIGQUIT)
	if got := p.status(); got != 2 || !strings.Contains(p.stderr.String(), "goroutine ") {
		t.Errorf("status %d, stderr %q", got, p.stderr)
	}
}
