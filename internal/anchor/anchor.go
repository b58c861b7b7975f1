// Package anchor is a process whose pid never changes, for services that nothing
// else supervises: in a terminal, under go run, as PID 1 of a container.
//
// It starts the parent in a process group of its own, so that a terminal's
// Ctrl-C reaches it once, through the anchor; it forwards signals to whichever
// process is the parent now; it reaps what is orphaned; and it exits with the
// service's status once nothing of the service is left. It speaks systemd's
// notification protocol to the parent (sd_notify(3)), so the parent speaks one
// language to whoever is above it.
package anchor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/signals"
)

// EnvPid tells the parent the anchor's pid, to show it to people.
const EnvPid = "HANDOVER_ANCHOR"

// Config says what to hold.
type Config struct {
	Title string   // of the parent, shown in ps
	Env   []string // of the parent, beyond this process's own
	// Grace is how long what a dead parent leaves behind may take to end by
	// itself, before it is killed. Default 30 s, which is more than a drain takes.
	Grace  time.Duration
	Logger *slog.Logger
}

// DefaultGrace is Config.Grace's default.
const DefaultGrace = 30 * time.Second

// forwarded are the signals that are for the service. CHLD is the anchor's own;
// what it does not know keeps its default action.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH,
}

// Run starts the parent from this process's image, with the same arguments, and
// holds it. It returns the exit status of the service: the last parent's, or 128
// and the number of the signal that killed it. Nothing else may start or wait for
// processes here.
func Run(cfg Config) (int, error) {
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if os.Getenv(EnvPid) != "" {
		return 1, fmt.Errorf("an anchor below an anchor (%s is set): this program does not become the parent when it is started as one", EnvPid)
	}
	terminal := signals.WatchTerminal()
	defer terminal.Close()
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, forwarded...)
	defer signal.Stop(sigs)
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)

	if err := launch.BecomeSubreaper(); err != nil {
		return 1, err
	}
	inbox, err := newInbox()
	if err != nil {
		return 1, err
	}
	defer inbox.close()

	env := append(os.Environ(), cfg.Env...)
	env = append(env, sdnotify.Env+"="+inbox.addr, fmt.Sprintf("%s=%d", EnvPid, os.Getpid()))
	args, env := launch.Titled(cfg.Title, env)
	p, err := launch.Start(launch.Spec{Path: launch.Self, Args: args, Env: env, Fds: []int{0, 1, 2}, Setpgid: true})
	if err != nil {
		return 1, err
	}
	defer p.Close()

	a := &anchor{cfg: cfg, log: cfg.Logger, main: p.Pid}
	var grace <-chan time.Time
	for {
		select {
		case sig := <-sigs:
			if sig == syscall.SIGHUP && terminal.HungUp() {
				sig = syscall.SIGTERM // it was closed: nobody asked for an upgrade
			}
			a.forward(sig.(syscall.Signal))
		case n := <-inbox.notes:
			if a.take(n) {
				grace = nil
			}
			n.done()
		case <-chld:
			wasDead := a.dead
			left := a.reap()
			if a.dead && !left {
				return a.status, nil
			}
			if a.dead && !wasDead {
				a.log.Error("the parent is gone, what it left drains", "pid", a.main, "status", a.status, "grace", cfg.Grace)
				grace = time.After(cfg.Grace)
			}
		case <-terminal.Ticks():
			terminal.Look()
		case <-grace:
			a.log.Error("killing what is left of the service", "pids", launch.Children())
			a.killAll()
		}
	}
}

// anchor is the state of Run's loop.
type anchor struct {
	cfg    Config
	log    *slog.Logger
	main   int              // pid of the process that is the service
	ready  bool             // it can act on signals
	early  []syscall.Signal // what arrived before
	dead   bool             // it has been reaped
	status int              // its exit status as a shell shows it
}

// forward passes a signal to the parent. When there is none any more, the second
// request to stop ends what is left.
func (a *anchor) forward(sig syscall.Signal) {
	if !a.ready && sig != syscall.SIGINT && sig != syscall.SIGTERM {
		a.early = append(a.early, sig)
		return
	}
	if !a.dead {
		// The pid is a child's that was not reaped, or a descendant's that the
		// parent vouched for; nobody else has it.
		if err := syscall.Kill(a.main, sig); err != nil {
			a.log.Error("signal not forwarded", "signal", sig.String(), "pid", a.main, "error", err)
		}
		return
	}
	if sig == syscall.SIGINT || sig == syscall.SIGTERM {
		a.killAll()
	}
}

func (a *anchor) killAll() {
	for _, pid := range launch.Children() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// take follows what the parent says, and reports whether there is a new parent.
// As with systemd's NotifyAccess=main, only the parent may name another; when it
// is dead, a process that it left may name itself: the successor that it was
// bringing up.
func (a *anchor) take(n note) bool {
	if n.pid == a.main && n.has("READY=1") && !a.ready {
		a.ready = true
		for _, sig := range a.early {
			a.forward(sig)
		}
		a.early = nil
	}
	pid := n.mainPid()
	if pid <= 0 || pid == a.main {
		return false
	}
	if n.pid != a.main && !(a.dead && n.pid == pid && slices.Contains(launch.Children(), pid)) {
		a.log.Warn("MAINPID from a process that is not the parent: ignored", "from", n.pid, "pid", pid)
		return false
	}
	a.main, a.dead = pid, false
	return true
}

// reap takes in every child that has ended and reports whether some are left.
func (a *anchor) reap() (left bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // ECHILD
			return false
		case pid == 0:
			return true
		}
		if pid == a.main {
			a.dead = true
			a.status = ws.ExitStatus()
			if ws.Signaled() {
				a.status = 128 + int(ws.Signal())
			}
		}
	}
}
