// Package upgrader keeps named listening sockets open over changes of a
// program's binary.
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
//	g.Add(signals.Actor(ctx, signals.Map{syscall.SIGHUP: up.Upgrade, syscall.SIGTERM: signals.Stop}))
//	err = g.Run()
//
// The package knows nothing about workers. A parent that has some hands them on
// through Config.Yield and gets its predecessor's from Ready.
package upgrader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
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
	// Logger gets what has no caller to return to. Default slog.Default().
	Logger *slog.Logger
}

// Validate says which part of the configuration can't work.
func (c Config) Validate() error {
	if c.Timeout < 0 {
		return fmt.Errorf("upgrade timeout %v: must be positive", c.Timeout)
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
	phaseStarting phase = iota
	phaseReady
	phaseUpgrading
	phaseReplaced
	phaseSpent
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

	mu        sync.Mutex
	phase     phase
	sockets   map[string]*Socket
	inherited map[listen.Spec]*Socket // not claimed yet
	attempt   *attempt                // while phaseUpgrading
	cancel    context.CancelFunc      // ends the attempt
	idle      chan struct{}           // closed when the attempt has ended
	successor *launch.Process

	replaced chan struct{}
	stopped  chan struct{}
}

// New takes this process's place in the succession. Call it early, and before
// anything that listens. It can be called once in a process.
//
// It takes what the process inherited out of the environment, so that children
// started later do not take themselves for successors.
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
	u := &Upgrader{
		cfg:        cfg,
		log:        cfg.Logger,
		generation: 1,
		sockets:    map[string]*Socket{},
		inherited:  map[listen.Spec]*Socket{},
		replaced:   make(chan struct{}),
		stopped:    make(chan struct{}),
	}
	pred, err := meetPredecessor()
	if err != nil {
		return nil, err
	}
	// The deadline is ours; tableflip's is set out of the way.
	u.tf, err = tableflip.New(tableflip.Options{UpgradeTimeout: 1000 * time.Hour})
	if err == nil && launch.Supported {
		err = injectSpawner(u.tf, u.spawn)
	}
	os.Unsetenv("TABLEFLIP_HAS_PARENT_7DIU3")
	if err != nil {
		return nil, fmt.Errorf("upgrader: %w", err)
	}
	if pred != nil {
		// tableflip leaves its two pipes open over exec.
		syscall.CloseOnExec(3)
		syscall.CloseOnExec(4)
		u.pred = pred
		u.generation = pred.generation
		u.inherited = pred.sockets
	}
	return u, nil
}

// Generation counts the processes that have decided: 1 for the first, one more
// with every upgrade.
func (u *Upgrader) Generation() int { return u.generation }

// HasPredecessor reports whether this process was started by an upgrade.
func (u *Upgrader) HasPredecessor() bool { return u.pred != nil }

// Open returns the inherited socket of that name, or binds it. Networks are tcp,
// tcp4, tcp6 and unix; addresses are as for net.Listen. Another address or
// network than the predecessor used under the same name opens a new socket.
//
// A name can be opened once in a process. Call it before Ready.
func (u *Upgrader) Open(name, network, addr string) (*Socket, error) {
	spec := listen.Spec{Name: name, Network: network, Addr: addr}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase == phaseStopped {
		return nil, fmt.Errorf("open socket %v: %w", spec, ErrStopped)
	}
	if s, ok := u.sockets[name]; ok {
		return nil, fmt.Errorf("open socket %v: the name is taken already by %v", spec, s.spec)
	}
	s, ok := u.inherited[spec]
	if ok {
		delete(u.inherited, spec)
	} else {
		var err error
		if s, err = openSocket(spec); err != nil {
			return nil, err
		}
	}
	u.sockets[name] = s
	return s, nil
}

// Listen is Open for a process that accepts by itself. Closing the listener
// leaves the socket open for the successor.
func (u *Upgrader) Listen(name, network, addr string) (net.Listener, error) {
	s, err := u.Open(name, network, addr)
	if err != nil {
		return nil, err
	}
	return s.Listener()
}

// Dropped takes over the sockets that the predecessor had and that this process
// did not open. Whoever calls it closes them, when nobody serves them any more;
// otherwise Ready does.
func (u *Upgrader) Dropped() []*Socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []*Socket
	for spec, s := range u.inherited {
		list = append(list, s)
		delete(u.inherited, spec)
	}
	return list
}

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

// Ready says that this process could serve. In the first generation that makes
// it the one that decides, at once. In a later one it waits for the
// predecessor's commit and returns its legacy; if the predecessor dies first,
// this process decides with an empty legacy. The PID file is written then, and
// the supervisor told.
//
// If ctx ends first, or the predecessor's commit does not arrive whole, nothing
// has changed for the predecessor.
func (u *Upgrader) Ready(ctx context.Context) (Legacy, error) {
	u.mu.Lock()
	if u.phase != phaseStarting {
		u.mu.Unlock()
		return Legacy{}, errors.New("upgrader: Ready was called before, or after Stop")
	}
	u.mu.Unlock()

	var legacy Legacy
	orphan := false
	if u.pred != nil {
		var err error
		legacy, err = u.pred.awaitCommit(ctx)
		switch {
		case errors.Is(err, errOrphaned):
			orphan = true
			u.log.Warn("the previous parent is gone before its commit: going on without what it had")
		case err != nil:
			return Legacy{}, err
		}
		u.pred.takeOver()
	}
	// From here on this process decides. A HUP may come as soon as the PID file
	// says so, hence the order.
	u.mu.Lock()
	u.phase = phaseReady
	u.mu.Unlock()
	if u.cfg.PIDFile != "" {
		if err := writePIDFile(u.cfg.PIDFile); err != nil {
			u.log.Error("the service runs, but its PID file could not be written", "error", err)
		}
	}
	// An error means that the predecessor is gone: so be it, it has committed.
	_ = u.tf.Ready()
	if u.pred == nil || orphan {
		if err := sdnotify.Send(fmt.Sprintf("MAINPID=%d", os.Getpid()), "READY=1"); err != nil {
			u.log.Error("the supervisor could not be told that the service is ready", "error", err)
		}
	}
	for _, s := range u.Dropped() {
		s.Close()
	}
	return legacy, nil
}

// Fail tells the predecessor why this process gives up, so that its caller of
// Upgrade is told. It does nothing in the first generation and after Ready. The
// process is expected to exit then.
func (u *Upgrader) Fail(reason error) {
	if u.pred != nil && reason != nil {
		u.pred.fail(reason)
	}
}

// Replaced is closed when a successor has taken over. Whoever waits for it stops
// accepting, finishes what it has, and exits.
func (u *Upgrader) Replaced() <-chan struct{} { return u.replaced }

// Relay passes a signal on to the successor and reports whether there is one.
// Signals that reach a process which was just replaced are meant for the service.
func (u *Upgrader) Relay(sig os.Signal) bool {
	select {
	case <-u.replaced:
	default:
		return false
	}
	s, ok := sig.(syscall.Signal)
	return ok && u.successor.Signal(s) == nil
}

// Stop ends this process's part: a running upgrade is given up and its new
// process killed, no other begins, the sockets are closed. Unless a successor has
// taken over, the service is at its end, and the files of unix sockets and the
// PID file are removed. Stop blocks until that is done; it may be called more
// than once.
func (u *Upgrader) Stop() {
	u.mu.Lock()
	if u.phase == phaseStopped {
		u.mu.Unlock()
		<-u.stopped
		return
	}
	if u.phase == phaseUpgrading {
		idle := u.idle
		u.cancel()
		u.mu.Unlock()
		<-idle
		u.mu.Lock()
	}
	if u.phase == phaseStopped {
		u.mu.Unlock()
		<-u.stopped
		return
	}
	was := u.phase
	u.phase = phaseStopped
	u.mu.Unlock()
	defer close(u.stopped)

	u.tf.Stop()
	for _, s := range u.sockets { // no Open any more
		// One that never came to decide leaves its predecessor's files alone.
		if was != phaseReplaced && (was != phaseStarting || s.bound) {
			s.unlink()
		}
		s.Close()
	}
	for _, s := range u.Dropped() {
		s.Close()
	}
	if was != phaseReplaced && u.cfg.PIDFile != "" {
		removePIDFile(u.cfg.PIDFile)
	}
	if u.pred != nil {
		u.pred.close()
	}
}

// Actor returns the two functions for run.Group.Add. Execute calls Ready, and
// returns nil when this process has been replaced or interrupted. Interrupt
// begins Stop and does not wait for it; execute does.
func (u *Upgrader) Actor() (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	return func() error {
			legacy, err := u.Ready(ctx)
			legacy.Close()
			if err == nil {
				select {
				case <-u.replaced:
				case <-ctx.Done():
				}
			} else if ctx.Err() != nil {
				err = nil
			}
			if ctx.Err() != nil {
				u.Stop()
			}
			return err
		}, func(error) {
			cancel()
		}
}
