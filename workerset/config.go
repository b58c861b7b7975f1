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
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
)

// Defaults of a Group.
const (
	DefaultStartTimeout = 30 * time.Second
	// termTime is what a worker gets between SIGTERM and SIGKILL.
	termTime = 2 * time.Second
	// drainGrace is what a worker gets beyond its drain timeout before SIGTERM:
	// it cuts what is left by itself, and reports that.
	drainGrace = 1500 * time.Millisecond
)

// Program is what a worker executes.
//
// Variables of the environment that concern the parent alone, such as
// NOTIFY_SOCKET, LISTEN_FDS and WATCHDOG_USEC, do not reach the workers.
type Program struct {
	Path string   // default: the image of this process
	Args []string // without argv[0]; nil with the default Path: this process's own
	Env  []string // default: this process's environment at the time of each start
	Dir  string   // default: this process's working directory
}

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
	// Stdout and Stderr are the workers' descriptors 1 and 2. Default 1 and 2.
	Stdout, Stderr int
	// CPUs are shared out among the workers of a group as GOMAXPROCS, at least
	// one each; the lowest slots get what is left over. A worker keeps its share
	// when the group is scaled. 0 leaves GOMAXPROCS alone, and a GOMAXPROCS in
	// Group.Env goes before it.
	CPUs int
	// Trial makes Start bring up one worker in each group, ready but not
	// accepting, until Commit.
	Trial bool
	// Logger gets every change worth knowing. Default slog.Default().
	Logger *slog.Logger
	// Observe, if set, is called for every change of a worker's state, from the
	// set's loop: it must not block and not call the set.
	Observe func(Change)
}

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
		if seen[g.Name] {
			return bad("group %q is there twice", g.Name)
		}
		seen[g.Name] = true
	}
	return c, nil
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
	for _, kv := range g.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("group %q: environment entry %q is not NAME=VALUE", g.Name, kv)
		}
	}
	g.Surge = cmp.Or(g.Surge, 1)
	g.StartTimeout = cmp.Or(g.StartTimeout, DefaultStartTimeout)
	g.DrainTimeout = cmp.Or(g.DrainTimeout, drain.DefaultTimeout)
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
