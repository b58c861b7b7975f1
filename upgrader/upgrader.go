// Package upgrader keeps named sockets and files open over changes of a program's
// binary.
//
// A process that uses it opens its sockets by name, calls Ready when it serves,
// and Upgrade, usually on SIGHUP, to put a new process of the program's current
// binary in its place. The new process gets the sockets first; only when it says
// that it could serve does the old one give up, in one step, the commit. Until
// then any failure of the new process leaves the old one as it was.
//
//	up, err := upgrader.New(upgrader.Config{PIDFile: "/run/shop.pid"})
//	ln, err := up.Listen("http", "tcp", ":8080")
//	var g run.Group
//	g.Add(drain.Actor(srv, ln, drain.Config{}))
//	g.Add(up.Actor())
//	g.Add(signals.Actor(ctx, signals.Map{syscall.SIGHUP: up.Upgrade, syscall.SIGTERM: signals.Stop}, signals.Late(late)))
//	err = g.Run()
//
// where late passes a HUP that comes too late for this process on to its
// successor, by Relay. The example is the whole of it.
//
// A first process takes the sockets that systemd has bound, if there are any
// (LISTEN_FDS, sd_listen_fds_with_names(3)): see Open.
//
// In a terminal or a container call Anchor first in main: it keeps the pid.
//
// The package knows nothing about workers. A parent that has some hands them on
// through Config.Yield and gets its predecessor's from Ready.
package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
)

// DefaultTimeout is how long an upgrade may take by default.
const DefaultTimeout = 60 * time.Second

// Config says how to upgrade. The zero value works.
type Config struct {
	// PIDFile, if set, holds the pid of the process that decides, from Ready on.
	// It is replaced atomically and removed at the end of the service.
	PIDFile string
	// Timeout bounds an upgrade, from the start of the new program to its
	// readiness. Default 60 s.
	Timeout time.Duration
	// Path is the program to upgrade to, looked up anew at every upgrade, so
	// that a symbolic link may lead to another release by then. Default: the
	// path that this process was started by.
	Path string
	// Title is argv[0] of the new process, what ps shows. Default: Path. The
	// program itself sees the name that it was called by.
	Title string
	// Yield, if set, is called at the commit. It stops deciding and returns what
	// the successor needs. What it returns stays open and stays the caller's. If
	// it returns an error, the upgrade fails and Resume is not called.
	Yield func(context.Context) (Legacy, error)
	// Resume, if set, is called when the successor is gone, or has been killed,
	// after Yield: nobody else decides now, so go on.
	Resume func()
	// Take, if set, is called once this process is the one that decides, with what
	// its predecessor had, before the PID file is written and the supervisor is
	// told: what can serve now, should. In a first generation the legacy is empty.
	Take func(Legacy)
	// Progress, if set, is called from Upgrade with what has just happened, in words
	// for a person.
	Progress func(string)
	// Logger gets what has no caller to return to. Default slog.Default().
	Logger *slog.Logger
}

// Validate says which part of the configuration can't work.
func (c Config) Validate() error {
	if c.Timeout < 0 {
		return fmt.Errorf("upgrader: timeout %v: must be positive, or 0 for %v", c.Timeout, DefaultTimeout)
	}
	for what, s := range map[string]string{"path": c.Path, "title": c.Title} {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("upgrader: %s %q: must not contain a zero byte", what, s)
		}
	}
	if (c.Yield == nil) != (c.Resume == nil) {
		return errors.New("upgrader: Yield and Resume go together")
	}
	if c.PIDFile != "" {
		return checkPIDFile(c.PIDFile)
	}
	return nil
}

type phase int

const (
	phaseStarting phase = iota // Ready has not returned
	phaseFailed                // Ready has returned an error
	phaseReady
	phaseUpgrading
	phaseReplaced
	phaseStopped
)

// Upgrader is this process's place in the succession. There is one in a process.
// Its methods may be called from any goroutine.
type Upgrader struct {
	cfg        Config
	log        *slog.Logger
	tf         *tableflip.Upgrader
	generation int
	pred       *predecessor // nil in the first generation
	pidFile    *pidFile     // nil if there is to be none

	life context.Context // ends with Stop, which ends what is under way
	quit context.CancelCauseFunc
	stop sync.Once

	readying sync.Mutex // held by Ready, so that Stop can wait for it

	mu        sync.Mutex
	phase     phase
	sockets   map[string]*Socket
	inherited map[listen.Spec]*Socket // not claimed yet
	passed    listen.Passed           // by a supervisor, and not claimed yet
	unclaimed []string                // names of what a supervisor has passed and nobody has opened
	dropped   []*Socket               // not claimed, and given to whoever called Dropped
	idle      chan struct{}           // closed when the last upgrade that began has ended

	background sync.WaitGroup  // drains of wards, and the wait for the predecessor's end
	attempt    *attempt        // belongs to the goroutine that runs Upgrade
	successor  *launch.Process // set before replaced is closed
	replaced   chan struct{}
	alone      chan struct{} // closed when the predecessor can't go on instead any more
	decided    chan struct{} // closed when this process has become the one that decides
}

// New takes this process's place in the succession. Call it early, and before
// anything that listens. It can be called once in a process.
//
// It takes what the process inherited out of the environment, LISTEN_FDS and what
// belongs to it included, so that children started later do not take themselves for
// successors. What is wrong there is an error that names the variable.
func New(cfg Config) (*Upgrader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.PIDFile != "" {
		// The program may change its working directory later.
		abs, err := filepath.Abs(cfg.PIDFile)
		if err != nil {
			return nil, fmt.Errorf("PID file %s: %w", cfg.PIDFile, err)
		}
		cfg.PIDFile = abs
	}
	u := &Upgrader{
		cfg:        cfg,
		generation: 1,
		sockets:    map[string]*Socket{},
		inherited:  map[listen.Spec]*Socket{},
		replaced:   make(chan struct{}),
		decided:    make(chan struct{}),
		alone:      make(chan struct{}),
	}
	u.life, u.quit = context.WithCancelCause(context.Background())
	pred, err := meetPredecessor()
	if err != nil {
		return nil, fmt.Errorf("upgrader: %w", err)
	}
	fault.Point(fault.NewMet)
	if pred != nil {
		takeWatchdog()
		listen.Forget() // descriptor 3 is tableflip's here
	} else if u.passed, err = listen.FromSupervisor(); err != nil {
		return nil, fmt.Errorf("upgrader: %w", err)
	}
	if u.tf, err = newTableflip(pred != nil, u.spawn); err != nil {
		if pred != nil {
			pred.fail(err)
			pred.close()
		}
		u.passed.Close()
		return nil, fmt.Errorf("upgrader: %w", err)
	}
	if cfg.PIDFile != "" {
		u.pidFile = stagePIDFile(cfg.PIDFile)
	}
	if pred != nil {
		u.pred = pred
		u.generation = pred.generation
		u.inherited = pred.sockets
	}
	u.log = cfg.Logger.With("generation", u.generation)
	return u, nil
}

// Generation counts the processes that have decided: 1 for the first, one more
// with every upgrade. See Continue.
func (u *Upgrader) Generation() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.generation
}

// Continue makes this process one of that generation: it goes on with what a process has
// left that has died. It is for one without a predecessor, before Ready; in others it does
// nothing.
func (u *Upgrader) Continue(generation int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pred == nil && u.phase == phaseStarting && generation > 0 {
		u.generation = generation
		u.log = u.cfg.Logger.With("generation", generation)
	}
}

// HasPredecessor reports whether this process was started by an upgrade.
func (u *Upgrader) HasPredecessor() bool { return u.pred != nil }

// Stdio are the descriptors of the service's standard output and error. They
// are 1 and 2, but for a new process before its commit: what that one prints goes
// to a pipe, so that the old one can say why an upgrade failed. A child that is
// to outlive the commit is started with these.
func (u *Upgrader) Stdio() (stdout, stderr int) {
	if u.pred != nil {
		return u.pred.stdout, u.pred.stderr
	}
	return 1, 2
}
