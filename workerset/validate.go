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
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/launch"
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
	if c.StopDelay < 0 {
		return bad("stop delay %v: must not be negative", c.StopDelay)
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
	if err := c.groupsWithDefaults(); err != nil {
		return bad("%w", err)
	}
	for i := range c.Groups {
		if err := c.Groups[i].checkProbe(c); err != nil {
			return bad("%w", err)
		}
		if err := c.Groups[i].checkNode(c); err != nil {
			return bad("%w", err)
		}
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
	case g.Ready.By == ReadyNotify && g.Program.Path == "":
		return fmt.Errorf("group %q: readiness notify is for a program with a path: workers of this binary say it on their channel", g.Name)
	case g.Ready.By != ReadyHTTP:
		return nil
	case len(g.Sockets) == 0:
		return fmt.Errorf("group %q: readiness %v: it has no socket to ask on", g.Name, g.Ready)
	case g.Program.Path == "":
		return nil // asked on a connection of its own
	}
	if _, err := tcpAddr(c.Sockets[g.socketsOf(1)[0]]); err != nil {
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

func (g *Group) withDefaults(c Config) error {
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
	if g.MaxRestarts < 0 || g.RestartWindow < 0 {
		return fmt.Errorf("group %q: %d restarts in %v: must not be negative", g.Name, g.MaxRestarts, g.RestartWindow)
	}
	if g.Program == nil {
		g.Program = &c.Program
	} else if err := g.Program.validate(); err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	if err := g.Recycle.Validate(g.Program.Path != ""); err != nil {
		return fmt.Errorf("group %q: %w", g.Name, err)
	}
	if err := g.checkUser(); err != nil {
		return err
	}
	if err := g.checkSockets(c.Sockets); err != nil {
		return err
	}
	if g.MaxRestarts == 0 {
		g.MaxRestarts = c.MaxRestarts
	}
	g.RestartWindow = cmp.Or(g.RestartWindow, c.RestartWindow, DefaultRestartWindow)
	g.Surge = cmp.Or(g.Surge, 1)
	g.Recycle.Jitter = cmp.Or(g.Recycle.Jitter, DefaultJitter)
	g.StartTimeout = cmp.Or(g.StartTimeout, DefaultStartTimeout)
	g.DrainTimeout = cmp.Or(g.DrainTimeout, drain.DefaultTimeout)
	g.DrainSignal = cmp.Or(g.DrainSignal, syscall.SIGTERM)
	g.Heartbeat = cmp.Or(g.Heartbeat, DefaultHeartbeat)
	g.HungAfter = cmp.Or(g.HungAfter, max(DefaultHungAfter, 3*g.Heartbeat))
	return nil
}
