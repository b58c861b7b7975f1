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
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

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
type Program struct {
	Path string   // default: the image of this process
	Args []string // without argv[0]
	Env  []string // default: this process's environment
	Dir  string   // default: this process's working directory
}

// Group is a number of workers that are alike.
type Group struct {
	Name    string
	Count   int      // workers, at least 1
	Surge   int      // workers beyond Count while a group is rolled; default 1
	Sockets []string // names of those in Config.Sockets; default all
	Args    []string // appended to Program.Args
	Env     []string // appended to Program.Env
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
	Generation int // counts from 1
	Groups     []Group
	// Sockets are listening sockets by name. The descriptors stay the caller's
	// and have to be open as long as the set runs.
	Sockets map[string]int
	// Stdout and Stderr are the workers' descriptors 1 and 2. Default 1 and 2.
	Stdout, Stderr int
	// CPUs are shared out among the workers of a group as GOMAXPROCS, at least
	// one each. 0 leaves GOMAXPROCS alone.
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

// withDefaults validates c and fills it in. Nothing is opened or started.
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
	for name, fd := range c.Sockets {
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
			return bad("socket %q, descriptor %d: not a socket, or closed: %w", name, fd, err)
		} else if v == 0 {
			return bad("socket %q, descriptor %d: a socket, but not a listening one", name, fd)
		}
	}
	c.Groups = slices.Clone(c.Groups)
	seen := map[string]bool{}
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.Name == "" || strings.ContainsAny(g.Name, "/: \t\n") {
			return bad("group name %q: a word without '/', ':' and spaces is needed", g.Name)
		}
		if seen[g.Name] {
			return bad("group %q is there twice", g.Name)
		}
		seen[g.Name] = true
		if g.Count < 1 {
			return bad("group %q: count %d, at least 1 worker is needed", g.Name, g.Count)
		}
		if g.Surge < 0 || g.StartTimeout < 0 || g.DrainTimeout < 0 {
			return bad("group %q: surge and timeouts must not be negative", g.Name)
		}
		if g.Surge == 0 {
			g.Surge = 1
		}
		if g.StartTimeout == 0 {
			g.StartTimeout = DefaultStartTimeout
		}
		if g.DrainTimeout == 0 {
			g.DrainTimeout = drain.DefaultTimeout
		}
		if g.Sockets == nil {
			for name := range c.Sockets {
				g.Sockets = append(g.Sockets, name)
			}
			slices.Sort(g.Sockets)
		}
		for _, name := range g.Sockets {
			if _, ok := c.Sockets[name]; !ok {
				return bad("group %q: there is no socket %q", g.Name, name)
			}
		}
	}
	return c, nil
}
