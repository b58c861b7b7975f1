// Package workerset is the parent's side of a set of worker processes: it starts
// them in groups, replaces those that fail before they are gone, rolls a group to
// new processes, scales it, and stops it with a drain.
//
// What happens to a worker is decided by the pure package internal/lifecycle;
// docs/architecture.md has its table. This package is the shell around it: one
// goroutine, the set's loop, owns all state, and everything else, readers of
// channels, waiters for processes, callers of methods, sends it events.
//
// The package knows nothing of sockets but their descriptors, nothing of signals,
// and nothing of upgrades but this: Yield gives all workers away, Config.Adopt
// and Commit take them over.
package workerset

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/launch"
)

// Defaults of a Group.
const (
	DefaultStartTimeout = 30 * time.Second
	DefaultHeartbeat    = 5 * time.Second
	DefaultHungAfter    = 30 * time.Second // and at least three heartbeats
	// DefaultRestartWindow is that of Config.MaxRestarts.
	DefaultRestartWindow = 60 * time.Second
	// termTime is what a worker gets between SIGTERM and SIGKILL.
	termTime = 2 * time.Second
	// drainGrace is what a worker gets beyond its drain timeout before SIGTERM:
	// it cuts what is left by itself, and reports that.
	drainGrace = 1500 * time.Millisecond
)

// Program is what a worker executes.
//
// Variables of the environment that concern the parent alone, such as its own
// NOTIFY_SOCKET, LISTEN_FDS and WATCHDOG_USEC, do not reach the workers.
//
// A Path makes it any program, in any language. It gets its sockets by LISTEN_FDS,
// LISTEN_PID and LISTEN_FDNAMES (sd_listen_fds(3)), a NOTIFY_SOCKET of its own
// (sd_notify(3): READY, STOPPING, WATCHDOG, STATUS), and a channel. Until it greets
// on that, as package worker does, it is foreign: it is drained by a signal, its
// channel's end means nothing, and it accepts when it likes.
type Program struct {
	Path string   // default: the image of this process
	Name string   // argv[0] of a program with a Path; default Path
	Args []string // without argv[0]; nil with the default Path: this process's own
	Env  []string // default: this process's environment at the time of each start
	Dir  string   // default: this process's working directory
	// Umask and Limits, if set, are what the process begins with. They need a Path.
	Umask  *uint32          // file mode creation mask (umask(2))
	Limits map[string]Limit // by name, such as "nofile" (setrlimit(2))
}

// Limit is a resource limit, soft and hard.
type Limit = launch.Limit

// Unlimited is no Limit.
const Unlimited = launch.Unlimited

// NodeChannel says whether a program gets NODE_CHANNEL_FD, by which Node has
// process.send and its events.
type NodeChannel int

const (
	NodeAuto NodeChannel = iota // if it is named node, or its first line says so
	NodeYes
	NodeNo
)

// Group is a number of workers that are alike.
type Group struct {
	Name    string   // a word without '/' and ':'
	Count   int      // workers, at least 1
	Surge   int      // workers beyond Count while a group is rolled; default 1
	Sockets []string // names of those in Config.Sockets; default (nil) all
	Args    []string // appended to Program.Args
	Env     []string // appended to Program.Env; of two entries with one name the last counts
	// StartTimeout is how long a worker may take to become ready. Default 30 s.
	StartTimeout time.Duration
	// DrainTimeout is how long a drain may take before what is left is cut.
	// Default 25 s. SIGTERM and, 2 s later, SIGKILL follow if it does not help.
	DrainTimeout time.Duration
	// Ready is how it is known that a worker could serve.
	Ready Readiness
	// Burst is how many workers that served and then failed are replaced at once
	// within Per, default 60 in 60 s. Past that one is every Per/Burst, and a
	// worker that can go on after its failure does, degraded, until its turn comes:
	// a client that can make the app panic is not to stop the service.
	Burst int
	Per   time.Duration
	// DrainSignal asks a foreign worker to drain. Default SIGTERM.
	DrainSignal syscall.Signal
	// ReopenSignal is what Reopen sends to a foreign worker; 0 is none. Others get
	// SIGUSR1.
	ReopenSignal syscall.Signal
	// NodeChannel: see there.
	NodeChannel NodeChannel
	// Heartbeat is how often a worker that greeted says that it lives. Default 5 s.
	Heartbeat time.Duration
	// HungAfter is how long a worker may be silent that has begun to say that it
	// lives, before SIGABRT and, 2 s later, SIGKILL end it. Default 30 s; negative:
	// for ever. A foreign one finds it in WATCHDOG_USEC and counts once it has
	// sent WATCHDOG=1.
	HungAfter time.Duration
}

// Config says what a set is made of.
type Config struct {
	Name       string // of the service, shown in ps
	Program    Program
	Generation int // counts from 1; default 1
	Groups     []Group
	// Sockets are open descriptors by name: listening sockets, sockets that receive
	// packets, files. The workers inherit them under these names (LISTEN_FDNAMES).
	// They stay the caller's and have to be open as long as the set runs.
	Sockets map[string]int
	// Stdout and Stderr are the workers' descriptors 1 and 2. Default 1 and 2. Those
	// of a program that has a Path get there line by line, see Output.
	Stdout, Stderr int
	// Output is what a line of such a program looks like.
	Output Output
	// CPUs are shared out among the workers of a group as GOMAXPROCS, at least
	// one each; the lowest slots get what is left over. A worker keeps its share
	// when the group is scaled. 0 leaves GOMAXPROCS alone, and a GOMAXPROCS in
	// Group.Env goes before it.
	CPUs int
	// Trial makes Start bring up one worker in each group, ready but not
	// accepting, until Commit.
	Trial bool
	// MaxRestarts, if set, is how many workers of a group may have to be replaced
	// within RestartWindow (default 60 s) because they ended or failed; with one more
	// the set stops, and Run returns ErrTooManyRestarts.
	MaxRestarts   int
	RestartWindow time.Duration
	// Started, if set, is called from the set's loop for every worker that the set has
	// started and that may serve from now on: one of a Program with a path, which
	// serves when it likes, when it is started, others not before the Commit. It must
	// not block and not call the set.
	Started func(Started)
	// Logger gets every change worth knowing. Default slog.Default().
	Logger *slog.Logger
	// Observe, if set, is called for every change of a worker's state, from the
	// set's loop: it must not block and not call the set.
	Observe func(Change)
}

// Started is a worker's process. The files are the set's; whoever needs
// them for longer than the call copies them.
type Started struct {
	Pid          int
	Pidfd        *os.File
	Output       []*os.File // read ends of its standard output and error
	DrainSignal  syscall.Signal
	DrainTimeout time.Duration
}

// Output is a form for the lines that programs print.
type Output int

const (
	OutputPrefixed Output = iota // "web/1 | " and the line
	OutputJSON                   // an object with time, level, msg, worker and stream
	OutputRaw                    // as it is: the programs have Stdout and Stderr themselves
)

// ErrConfig is wrapped by every error about a configuration.
var ErrConfig = errors.New("workerset: bad configuration")

// Validate says which part of the configuration can't work, in an error that wraps
// ErrConfig. Nothing is opened or started.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults validates c and fills it in.
func (c Config) withDefaults() (Config, error) {
	bad := func(format string, args ...any) (Config, error) {
		return c, fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Name == "" {
		c.Name = "handover"
	}
	if strings.ContainsRune(c.Name, 0) {
		return bad("name %q: must not contain a zero byte", c.Name)
	}
	if c.Generation < 0 {
		return bad("generation %d: generations count from 1", c.Generation)
	}
	if c.CPUs < 0 {
		return bad("%d CPUs: must not be negative, and 0 to leave GOMAXPROCS alone", c.CPUs)
	}
	if c.Generation == 0 {
		c.Generation = 1
	}
	if c.Stdout == 0 {
		c.Stdout = 1
	}
	if c.Stderr == 0 {
		c.Stderr = 2
	}
	if err := c.Program.validate(); err != nil {
		return bad("%w", err)
	}
	if c.Output < OutputPrefixed || c.Output > OutputRaw {
		return bad("output %d: unknown", c.Output)
	}
	if c.MaxRestarts < 0 || c.RestartWindow < 0 {
		return bad("%d restarts in %v: must not be negative", c.MaxRestarts, c.RestartWindow)
	}
	c.RestartWindow = cmp.Or(c.RestartWindow, DefaultRestartWindow)
	if len(c.Groups) == 0 {
		return bad("no group of workers")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sockets)) {
		if err := checkSocket(name, c.Sockets[name]); err != nil {
			return bad("%w", err)
		}
	}
	c.Groups = slices.Clone(c.Groups)
	seen := map[string]bool{}
	for i := range c.Groups {
		g := &c.Groups[i]
		if err := g.withDefaults(c.Sockets); err != nil {
			return bad("%w", err)
		}
		if err := g.checkProbe(c); err != nil {
			return bad("%w", err)
		}
		if seen[g.Name] {
			return bad("group %q is there twice", g.Name)
		}
		seen[g.Name] = true
	}
	return c, nil
}

func (p Program) validate() error {
	if p.Path == "" {
		if p.Umask != nil || p.Limits != nil {
			return errors.New("a umask and limits are for a program with a path: this process's own workers have its own")
		}
		return nil
	}
	if st, err := os.Stat(p.Path); err != nil {
		return fmt.Errorf("program: %w", err)
	} else if st.IsDir() {
		return fmt.Errorf("program %s: it is a directory", p.Path)
	}
	if p.Umask != nil && *p.Umask > 0o777 {
		return fmt.Errorf("umask %#o: only the bits 0777 are meant", *p.Umask)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Limits)) {
		if !slices.Contains(launch.LimitNames(), name) {
			return fmt.Errorf("limit %q: unknown, use one of %s", name, strings.Join(launch.LimitNames(), ", "))
		}
		if l := p.Limits[name]; l.Soft > l.Hard {
			return fmt.Errorf("limit %s: soft %d is above hard %d", name, l.Soft, l.Hard)
		}
	}
	return nil
}

// checkProbe refuses what can't be asked over HTTP.
func (g *Group) checkProbe(c Config) error {
	switch {
	case g.Ready.By == ReadyNotify && c.Program.Path == "":
		return fmt.Errorf("group %q: readiness notify is for a program with a path: workers of this binary say it on their channel", g.Name)
	case g.Ready.By != ReadyHTTP:
		return nil
	case len(g.Sockets) == 0:
		return fmt.Errorf("group %q: readiness %v: it has no socket to ask on", g.Name, g.Ready)
	case c.Program.Path == "":
		return nil // asked on a connection of its own
	}
	if _, err := tcpAddr(c.Sockets[g.Sockets[0]]); err != nil {
		return fmt.Errorf("group %q: readiness %v: socket %q: %w, and of other sockets it can't be found out which worker has answered: use notify, channel or a delay", g.Name, g.Ready, g.Sockets[0], err)
	}
	return nil
}

func checkSocket(name string, fd int) error {
	// The name travels in LISTEN_FDNAMES, which is split at colons
	// (sd_listen_fds_with_names(3)).
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r <= ' ' || r > '~' }) {
		return fmt.Errorf("socket name %q: letters, digits, '-' and '_' are good, ':' and spaces are not", name)
	}
	// What it is, is for the workers to judge.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("socket %q, descriptor %d: not open: %w", name, fd, err)
	}
	return nil
}

func (g *Group) withDefaults(sockets map[string]int) error {
	// The name stands between slashes in what travels to the next parent.
	odd := func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) || unicode.IsControl(r) }
	if g.Name == "" || strings.ContainsFunc(g.Name, odd) {
		return fmt.Errorf("group name %q: a word without '/', ':' and spaces is needed", g.Name)
	}
	if g.Count < 1 {
		return fmt.Errorf("group %q: count %d, at least 1 worker is needed", g.Name, g.Count)
	}
	if g.Surge < 0 {
		return fmt.Errorf("group %q: surge %d, must not be negative", g.Name, g.Surge)
	}
	if g.StartTimeout < 0 || g.DrainTimeout < 0 {
		return fmt.Errorf("group %q: start timeout %v and drain timeout %v must not be negative", g.Name, g.StartTimeout, g.DrainTimeout)
	}
	if g.Burst < 0 || g.Per < 0 {
		return fmt.Errorf("group %q: a burst of %d in %v, must not be negative", g.Name, g.Burst, g.Per)
	}
	if err := g.Ready.Validate(); err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	if g.Heartbeat < 0 {
		return fmt.Errorf("group %q: heartbeat %v must not be negative", g.Name, g.Heartbeat)
	}
	for what, sig := range map[string]syscall.Signal{"drain": g.DrainSignal, "reopen": g.ReopenSignal} {
		if sig < 0 || sig > 64 || sig == syscall.SIGKILL || sig == syscall.SIGSTOP {
			return fmt.Errorf("group %q: %s signal %d: nobody can act on it", g.Name, what, int(sig))
		}
	}
	for _, kv := range g.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("group %q: environment entry %q is not NAME=VALUE", g.Name, kv)
		}
	}
	g.Surge = cmp.Or(g.Surge, 1)
	g.StartTimeout = cmp.Or(g.StartTimeout, DefaultStartTimeout)
	g.DrainTimeout = cmp.Or(g.DrainTimeout, drain.DefaultTimeout)
	g.DrainSignal = cmp.Or(g.DrainSignal, syscall.SIGTERM)
	g.Heartbeat = cmp.Or(g.Heartbeat, DefaultHeartbeat)
	g.HungAfter = cmp.Or(g.HungAfter, max(DefaultHungAfter, 3*g.Heartbeat))
	if g.Sockets == nil {
		g.Sockets = slices.Sorted(maps.Keys(sockets))
	}
	for i, name := range g.Sockets {
		if _, ok := sockets[name]; !ok {
			return fmt.Errorf("group %q: there is no socket %q", g.Name, name)
		}
		if slices.Contains(g.Sockets[:i], name) {
			return fmt.Errorf("group %q: socket %q is there twice", g.Name, name)
		}
	}
	return nil
}
