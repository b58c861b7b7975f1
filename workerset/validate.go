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
	"github.com/handover-go/handover/internal/listen"
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
	if c.Grace < 0 {
		return bad("grace %v: must not be negative", c.Grace)
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
	for _, g := range c.Groups {
		if err := g.Program.checkPath(); err != nil {
			return bad("%w", &FieldError{g.Name, "Path", err})
		}
	}
	kind := func(name string) string {
		kind, _ := listen.Kind(c.Sockets[name])
		return kind
	}
	if err := c.checkUse(kind); err != nil {
		return bad("%w", err)
	}
	return c, nil
}

func (p Program) validate() error {
	var f faults
	p.check(&f)
	f.check("Path", p.checkPath())
	return f.err()
}

// checkPath says whether the program is not there.
func (p Program) checkPath() error {
	if p.Path == "" {
		return nil
	}
	if st, err := os.Stat(p.Path); err != nil {
		return fmt.Errorf("program: %w", err)
	} else if st.IsDir() {
		return fmt.Errorf("program %s: it is a directory", p.Path)
	}
	return nil
}

// check says all that is wrong but for the path.

func (p Program) check(f *faults) {
	if p.Path == "" {
		const why = "for a program with a path: this process's own workers have its own"
		if p.Umask != nil {
			f.add("Umask", "a umask is "+why)
		}
		if p.Limits != nil {
			f.add("Limits", "limits are "+why)
		}
		return
	}
	if p.Umask != nil && *p.Umask > 0o777 {
		f.add("Umask", "umask %#o: only the bits 0777 are meant", *p.Umask)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Limits)) {
		if !slices.Contains(launch.LimitNames(), name) {
			f.add("Limits", "limit %q: unknown, use one of %s", name, strings.Join(launch.LimitNames(), ", "))
		}
		if l := p.Limits[name]; l.Soft > l.Hard {
			f.add("Limits", "limit %s: soft %d is above hard %d", name, l.Soft, l.Hard)
		}
	}
}

// checkUse says what the sockets, of the kinds that are given by name, can't be used for.
func (c *Config) checkUse(kind func(name string) string) error {
	var errs []error
	for i := range c.Groups {
		g := &c.Groups[i]
		f := faults{group: g.Name}
		f.check("Ready", g.checkProbe(kind))
		g.checkNode(&f, kind)
		errs = append(errs, f.all...)
	}
	return errors.Join(errs...)
}

// checkProbe refuses what can't be asked over HTTP.
func (g *Group) checkProbe(kind func(name string) string) error {
	switch {
	case g.Ready.By == ReadyNotify && g.Program.Path == "":
		return errors.New("readiness notify is for a program with a path: workers of this binary say it on their channel")
	case g.Ready.By != ReadyHTTP:
		return nil
	case len(g.Sockets) == 0:
		return fmt.Errorf("readiness %v: it has no socket to ask on", g.Ready)
	case g.Program.Path == "":
		return nil // asked on a connection of its own
	}
	if kind(g.socketsOf(1)[0]) != "tcp" {
		return fmt.Errorf("readiness %v: socket %q: not a TCP socket, and of other sockets it can't be found out which worker has answered: use notify, channel or a delay", g.Ready, g.Sockets[0])
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
	if err := g.check(c); err != nil {
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

// check says all that is wrong with a group, which gets its program, user and sockets.
func (g *Group) check(c Config) error {
	// The name stands between slashes in what travels to the next parent.
	odd := func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) || unicode.IsControl(r) }
	if g.Name == "" || strings.ContainsFunc(g.Name, odd) {
		return &FieldError{"", "Name", fmt.Errorf("group name %q: a word without '/', ':' and spaces is needed", g.Name)}
	}
	f := faults{group: g.Name}
	if g.Count < 1 {
		f.add("Count", "count %d, at least 1 worker is needed", g.Count)
	}
	if g.Surge < 0 {
		f.add("Surge", "surge %d, must not be negative", g.Surge)
	}
	for _, d := range []struct {
		field, what string
		time.Duration
	}{
		{"StartTimeout", "start timeout", g.StartTimeout}, {"DrainTimeout", "drain timeout", g.DrainTimeout}, {"Heartbeat", "heartbeat", g.Heartbeat},
	} {
		if d.Duration < 0 {
			f.add(d.field, "%s %v: must not be negative", d.what, d.Duration)
		}
	}
	if g.Burst < 0 || g.Per < 0 {
		f.add("Burst", "a burst of %d in %v, must not be negative", g.Burst, g.Per)
	}
	if g.MaxRestarts < 0 || g.RestartWindow < 0 {
		f.add("MaxRestarts", "%d restarts in %v: must not be negative", g.MaxRestarts, g.RestartWindow)
	}
	f.check("Ready", g.Ready.Validate())
	for _, s := range []struct {
		field, what string
		syscall.Signal
	}{
		{"DrainSignal", "drain", g.DrainSignal}, {"ReopenSignal", "reopen", g.ReopenSignal},
	} {
		if s.Signal < 0 || s.Signal > 64 || s.Signal == syscall.SIGKILL || s.Signal == syscall.SIGSTOP {
			f.add(s.field, "%s signal %d: nobody can act on it", s.what, int(s.Signal))
		}
	}
	for _, kv := range g.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.ContainsRune(kv, 0) {
			f.add("Env", "environment entry %q is not NAME=VALUE", kv)
		}
	}
	if g.Program == nil {
		g.Program = &c.Program
	} else {
		g.Program.check(&f)
	}
	f.check(g.Recycle.fault(g.Program.Path != ""))
	f.check("User", g.checkUser())
	f.check("Sockets", g.checkSockets(c.Sockets))
	return f.err()
}
