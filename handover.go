// Package handover makes a server out of a parent and workers that restarts
// without any client noticing: on SIGHUP it changes to the program's current
// binary, and a worker that fails is replaced before it is gone.
//
//	func main() { // parent and workers, one binary
//		handover.Main(handover.Config{Name: "shop", Listen: []string{"http=tcp://:8080"}}, app)
//	}
//
//	func app(ctx context.Context, w *worker.Worker) error { // once in every worker
//		return w.Serve(ctx, "http", &http.Server{Handler: mux()})
//	}
//
// The package composes the others, which can be used alone: upgrader for one
// process without workers, workerset and worker, drain, signals.
package handover

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/automaxprocs/maxprocs"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/logqueue"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// Config describes a service. The zero value, with a Listen, is a good default.
type Config struct {
	// Name of the service, shown in ps and in messages. Default: the program's
	// base name.
	Name string
	// Listen are the sockets: "[NAME=]NETWORK://ADDRESS", for example
	// "http=tcp://:8080", "tcp6://[::1]:80", "admin=unix:///run/shop.sock" or
	// "dns=udp://:53". Networks are tcp, udp (and tcp4, tcp6, …), unix, unixgram and
	// unixpacket. The name defaults to "http"; every name stands once.
	//
	// A socket that systemd has bound (LISTEN_FDS, sd_listen_fds_with_names(3)) and
	// that has such a name, FileDescriptorName= in systemd.socket(5), is taken
	// instead, whatever its address is; a wrong kind is an error (upgrader.ErrKind).
	// Where none has the name, one that is bound to the address is taken.
	Listen []string
	// Command, if set, is a program and its arguments that the workers execute, in
	// any language, and the app is not used. It is looked up in PATH anew for every
	// generation, and pinned by its resolved path, as is the working directory; see
	// workerset.Program for what it gets, and workerset.NodeCluster and OfferMessage for
	// programs that were written for Node's own masters.
	Command []string
	// Program says more about it: DrainSignal, Ready and so on. They may be left
	// out.
	Program ProgramConfig
	// Dir is the working directory of the workers, and what is relative in Listen (paths of
	// unix sockets), Command, PIDFile and Control is relative to it. It is looked up anew
	// for every generation, so that a symbolic link in it may lead elsewhere by then.
	// Default: the one that the service was started in.
	Dir string
	// Env is added to the workers' environment, NAME=VALUE.
	Env []string
	// User is who the workers run as: "NAME", "NAME:GROUP" or "UID:GID". Only root may
	// start them as somebody else. Default: this process's user.
	User string
	// Groups, if set, are the kinds of workers that the service has, in any order; what
	// is said here is the default of each. Without it there is one, "web", of all
	// sockets. An upgrade may add, drop, change and reorder them: a group is known by
	// its name, and the workers of one that is not there any more are drained.
	Groups []Group
	// Workers is the number of worker processes. Default: as many as the CPUs
	// that the cgroup's quota allows.
	Workers int
	// Surge is how many workers beyond that a roll may have. Default 1.
	Surge int
	// StartTimeout is how long a worker may take to become ready. Default 30 s.
	StartTimeout time.Duration
	// DrainTimeout is how long a drain may take before what is left is cut.
	// Default 25 s.
	DrainTimeout time.Duration
	// LameDuck is how long idle connections stay open in a drain. Default 5 s.
	LameDuck time.Duration
	// MaxConns is how many connections of each of its sockets a worker has at a time. At the
	// limit it accepts none, so that they wait in the kernel's queue or another worker
	// accepts them, and takes none that move, as long as another worker of its group is
	// below the limit. It is not about a Command. Default 0, no limit.
	MaxConns int
	// TicketRotation is how often there is a new key for TLS session tickets, which workers of
	// this binary share (worker.Worker.TLS). Those before it open tickets for twice as long,
	// but at most 24 h. While an upgrade changes it, the shorter one counts. At least 1 s,
	// default 12 h.
	TicketRotation time.Duration
	// StopDelay is how long a stop lets the workers go on serving while readiness fails
	// already (GET /v1/ready on the control socket, worker.Worker.Stopping), so that a
	// load balancer in front notices. Default 0.
	StopDelay time.Duration
	// Grace is how long workers of this binary serve on when the parent has died and no other
	// one comes, before they drain. They drain at once where nothing is left that could start
	// one, such as without an anchor and without a supervisor that keeps descriptors. Default
	// 30 s.
	Grace time.Duration
	// Ready is how it is known that a worker could serve. By default it says so.
	Ready workerset.Readiness
	// Heartbeat is how often workers say that they live, default 5 s, and HungAfter
	// how long they may be silent, default 30 s and negative for ever. So it is with the
	// parent, for at least 5 s, where an anchor watches it.
	Heartbeat, HungAfter time.Duration
	// Recycle says when workers are replaced although nothing is wrong with them: by age,
	// requests or memory. It is not about agents. Default: never.
	Recycle workerset.Recycle
	// Burst is how many workers of a group that served and then failed are replaced at
	// once within Per, default 60 in 60 s; past that it is one every Per/Burst.
	Burst int
	Per   time.Duration
	// MaxRestarts, if set, is how many workers of a group may have to be replaced within
	// RestartWindow, default one minute, because they ended or failed; with one more the
	// service drains and ends with 1. By default it never gives up, and not on probation, as
	// long as there is a generation to go back to.
	MaxRestarts   int
	RestartWindow time.Duration
	// UpgradeTimeout bounds an upgrade up to its commit. Default 60 s.
	UpgradeTimeout time.Duration
	// Probation is how long a generation is watched after an upgrade, from when its workers
	// have replaced the older ones. If they fail meanwhile, or before, more often than
	// ProbationFailures allows, the parent goes back to the generation before, of which it
	// has kept a copy of the binary, what programs were found, and the Source. Default 10 s;
	// negative: none is watched.
	Probation time.Duration
	// ProbationFailures is how many failures are allowed, of workers that die, fail or hang
	// and of answers about their Health. Default 1; negative: not one.
	ProbationFailures int
	// Health, if set, is "http:PATH", which workers are asked for every second while they
	// are on probation, on the first of their sockets that accepts connections, a program's
	// over TCP; any status below 400 means that they are well. Workers without such a socket
	// are not asked.
	Health string
	// PIDFile, if set, holds the parent's pid. The anchor's pid, where there is
	// an anchor, does the same and never changes.
	PIDFile string
	// Control, if set, is the path of a unix socket on which 'handover status', 'handover
	// upgrade' and so on ask this service; "auto" is NAME.sock in $RUNTIME_DIRECTORY,
	// in $XDG_RUNTIME_DIR/handover, or in a directory of the user's own under the
	// temporary one, or under /dev/shm if that one can't be written. Without any of
	// these there is a warning, and no control socket.
	Control string
	// ControlGroup, if set, is a group whose members may read on the control socket (GET),
	// and not act: its mode is 0660 then and not 0600. Control has to be a path, or "auto"
	// with a $RUNTIME_DIRECTORY: the other directories are the user's alone.
	ControlGroup string
	// StatusListen, if set, is an address, "tcp://HOST:PORT", on which everybody who reaches
	// it may ask what can be asked on the control socket with GET: /v1/status, /v1/ready and
	// /metrics. Nothing that acts is there. It is not encrypted, and the status has all that
	// 'handover status' shows, also what failed workers said. It is inherited in upgrades, and
	// closed by the first one whose configuration has it no more.
	StatusListen string
	// Anchor asks for the process that keeps the pid also where NOTIFY_SOCKET says that
	// something supervises the service. It tells that one what the parent says.
	Anchor bool
	// NoAnchor leaves out the process that keeps the pid. There is none either
	// where NOTIFY_SOCKET says that something supervises the service. PID 1 of a
	// container is an anchor in any case: with it all would end.
	NoAnchor bool
	// Single runs the app in this process, without parent and workers: under a
	// debugger, or where upgrades are not wanted. On other systems than Linux it
	// is always so.
	Single bool
	// KeepOutput makes what workers of this binary print go through the parent, as it is,
	// so that it remembers the end of it for 'handover logs'. A pipe is between then: while
	// the parent is stopped (SIGSTOP) or its own output's reader is, workers wait when they
	// print. Of a Command that is always so, unless its Output is OutputRaw.
	KeepOutput bool
	// Handlers are what the parent does with messages that are sent to it
	// (message.Parent), by type.
	Handlers map[string]message.Handler
	// InParent, if set, runs in the parent that decides, from when it does until ctx
	// ends: when another parent decides, which runs its own, or when the service stops. It
	// may send messages to the workers. The parent has one CPU (GOMAXPROCS): a function
	// that needs more has to set it, or better be a worker, such as an agent.
	InParent func(ctx context.Context, m *message.Endpoint)
	// Started, if set, is called in the first parent when all workers serve.
	Started func(Info)
	// Events, if set, is told what happens to the workers, in the parent that decides
	// about them: see workerset.Event, and workerset.Config.Events for how.
	Events func(workerset.Event)
	// Logger gets what happens. Default slog.Default(). If it hangs, as one that writes to a pipe
	// which nobody reads, up to a thousand records wait until it takes them, and the service goes on.
	Logger *slog.Logger
	// Source is the text that this was made of, if it was, at most MaxSource: what a
	// configuration file says. It is kept for the way back: see KeptSource.
	Source []byte
}

// ProgramConfig is about Config.Command. The zero value is good.
type ProgramConfig struct {
	DrainSignal  syscall.Signal             // asks for a drain; default SIGTERM
	ReopenSignal syscall.Signal             // what USR1 becomes; 0: nothing
	NodeChannel  workerset.NodeChannel      // whether it gets NODE_CHANNEL_FD
	Offer        workerset.Offer            // whether messages bring it its sockets, too
	Umask        *uint32                    // nil: this process's own
	Limits       map[string]workerset.Limit // by name, such as "nofile"
	Output       workerset.Output           // what its lines look like
}

// Info is what a person who has just started the service wants to know.
type Info struct {
	Pid     int      // to send signals to
	Workers int      // how many serve
	Listen  []string // addresses as they were bound, "NAME=NETWORK://ADDRESS"
}

// Roles of a process of the service, in the environment variable envRole. Workers
// are known by their channel.
const (
	envRole    = "HANDOVER_ROLE"
	roleAnchor = "anchor"
	roleParent = "parent"
)

// Main runs the service and exits. Call it first in main: what stands before it
// runs in every process of the service.
//
// Exit codes: 0 after an orderly stop, 1 after a failure, 2 for a bad
// configuration. A second INT or TERM stops at once, with 130 or 143.
func Main(cfg Config, app worker.App) {
	code, err := Run(cfg, app)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
	}
	os.Exit(code)
}

// Run is Main without the exit: it returns the exit code. It may replace the
// process's image (execve(2)) by the same program with another title, which keeps
// its pid and what was passed in LISTEN_FDS.
func Run(cfg Config, app worker.App) (int, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return 2, err
	}
	cfg.Logger = slog.New(logqueue.NewHandler(cfg.Logger.Handler())) // who decides does not wait for a log's reader
	role := os.Getenv(envRole)
	switch {
	case (len(cfg.Groups) > 0 || cfg.command()) && !launch.Supported:
		return 1, launch.ErrUnsupported
	case worker.Inherited() || cfg.Single || !launch.Supported:
		if !worker.Inherited() && !cfg.Single {
			cfg.Logger.Warn("one process without upgrades: parent and workers need Linux", "os", runtime.GOOS)
		}
		err := worker.Run(context.Background(), cfg.worker(), cfg.app(app))
		return worker.ExitCode(err), err
	case role == roleAnchor:
		return anchor.Run(anchor.Config{
			Title:       cfg.Name + ": parent",
			Env:         []string{envRole + "=" + roleParent},
			Role:        []string{envRole + "=" + roleAnchor},
			Grace:       cfg.anchorGrace(),
			HungAfter:   cfg.parentHungAfter(),
			DrainSignal: cfg.Program.DrainSignal,
			Logger:      cfg.Logger.With("service", cfg.Name),
		})
	case role == roleParent:
		anchor.Receive()
		return cfg.parent()
	case os.Getpid() != 1 && (cfg.NoAnchor || sdnotify.Enabled() && !cfg.Anchor):
		return become(roleParent, cfg.Name+": parent")
	default:
		return become(roleAnchor, cfg.Name+": anchor")
	}
}

// become gives this process a role and a title, which takes a new image of the
// same program.
func become(role, title string) (int, error) {
	env := append(os.Environ(), envRole+"="+role)
	if wd, err := os.Getwd(); err == nil {
		env = append(env, "PWD="+wd) // by the name that the shell knows it by
	}
	if role == roleAnchor {
		return 1, anchor.Become(title, env)
	}
	args, env := launch.Titled(title, env)
	err := syscall.Exec(launch.Self, args, launch.Environ(env))
	return 1, fmt.Errorf("execute %s as the %s: %w (is /proc mounted?)", launch.Self, role, err)
}

func (c Config) worker() worker.Config {
	return worker.Config{Listen: c.Listen, DrainTimeout: c.DrainTimeout, LameDuck: c.LameDuck, MaxConns: c.MaxConns, TicketRotation: c.TicketRotation, StopDelay: c.StopDelay, Logger: c.Logger}
}

// anchorGrace is longer than what is left of a service without a parent needs:
// workers to wait for another one and to drain, or a new parent that was being brought up to
// come up.
func (c Config) anchorGrace() time.Duration {
	alone := cmp.Or(c.Grace, worker.DefaultGrace) + cmp.Or(c.DrainTimeout, drain.DefaultTimeout)
	return 5*time.Second + max(alone, cmp.Or(c.UpgradeTimeout, upgrader.DefaultTimeout))
}

// parentHungAfter is how long the parent may be silent: as long as a worker, but not as short
// as to be killed for being busy.
func (c Config) parentHungAfter() time.Duration {
	if c.HungAfter < 0 {
		return 0
	}
	return max(5*time.Second, cmp.Or(c.HungAfter, workerset.DefaultHungAfter))
}

// cpus is how many CPUs this process may use, the cgroup's quota considered. It
// is asked once, in the parent, which shares it out and is content with one itself: it
// does one thing after the other, and a runtime with more wakes threads to look for work
// that is not there (docs/decisions.md).
func cpus() int {
	_, _ = maxprocs.Set(maxprocs.Logger(func(string, ...any) {}))
	return runtime.GOMAXPROCS(1)
}
