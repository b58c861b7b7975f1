package handover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// Group is workers that are alike, one of several kinds in Config.Groups. What is left
// out is as in the Config.
type Group struct {
	// Name is a word, shown in ps and in messages.
	Name string
	// Agent makes it one process that helps the others: it has no sockets, every
	// group that is no agent goes After it, and a failure that it can go on after does
	// not replace it (KeepFailed). Its App calls worker.Worker.Ready when it could
	// serve. Over an upgrade the new one is ready before the old one goes.
	Agent bool
	// App is what its workers run. Default: the one that Main was given.
	App worker.App
	// Command is a program and its arguments, as in Config.Command. Default: that one,
	// unless there is an App.
	Command []string
	// Program says more about it, and replaces Config.Program where it has a Command.
	Program ProgramConfig
	// Args are appended to the arguments of the Command, or else to those of this
	// process.
	Args []string
	// Env is added to the environment, and to Config.Env, NAME=VALUE.
	Env []string
	// Dir is the working directory, and what is relative in Command is relative to it, as it
	// is itself to Config.Dir.
	Dir string
	// Workers is how many there are.
	Workers int
	// Surge is how many workers beyond that a roll may have.
	Surge int
	// Sockets are names of those in Config.Listen. Default (nil): all. In a name,
	// "{slot}" is the worker's slot, from 1 to Workers, so that "admin-{slot}" is a
	// socket of each one's own: admin-1, admin-2 and so on are in Listen then.
	// Connections do not move between those, nobody else serves them.
	Sockets []string
	// User is who its workers run as: "NAME", "NAME:GROUP" or "UID:GID". Only root may
	// start them as somebody else.
	User string
	// After names groups that have to serve before this one starts, and that stop
	// after it. It is about the start and the stop of the whole service: later, a worker
	// is replaced whatever the others do.
	After []string
	// Recycle says when they are replaced although nothing is wrong with them. Default: as
	// the Config says, unless it is an agent; with nothing but a Jitter, never.
	Recycle workerset.Recycle
	// Burst is how many workers that served and then failed are replaced at once within
	// Per, default 60 in 60 s; past that it is one every Per/Burst.
	Burst int
	Per   time.Duration
	// MaxRestarts, if set, is how many may have to be replaced within RestartWindow,
	// default one minute; with one more the service drains and ends with 1.
	MaxRestarts   int
	RestartWindow time.Duration
	// KeepFailed keeps workers that say that they have failed and could go on: that is
	// logged, and an event, and nobody replaces them.
	KeepFailed bool
	// Silent: what they print is not passed on.
	Silent bool
	// Health, as in the Config, or "none". Agents have none.
	Health string
	// KeepOutput, as in the Config.
	KeepOutput bool
	// StartTimeout, DrainTimeout, Ready, Heartbeat and HungAfter: as in the Config.
	StartTimeout, DrainTimeout time.Duration
	Ready                      workerset.Readiness
	Heartbeat, HungAfter       time.Duration
}

// webGroup is the name of the group where there are no others.
const webGroup = "web"

// groups are all of them, with what they take from the Config, for workers of which
// there are n where nobody says how many.
func (c Config) groups(n int) []Group {
	all := slices.Clone(c.Groups)
	if len(all) == 0 {
		all = []Group{{Name: webGroup}}
	}
	var agents []string
	for _, g := range all {
		if g.Agent {
			agents = append(agents, g.Name)
		}
	}
	for i := range all {
		g := &all[i]
		if len(g.Command) == 0 && g.App == nil {
			g.Command, g.Program = c.Command, c.Program
		}
		if g.Agent {
			g.Workers, g.Sockets, g.KeepFailed = cmp.Or(g.Workers, 1), []string{}, true
		} else {
			g.After = slices.Compact(slices.Sorted(slices.Values(slices.Concat(g.After, agents))))
		}
		g.Env = slices.Concat(c.Env, g.Env)
		g.Dir = cmp.Or(below(c.Dir, g.Dir), c.Dir)
		g.User = cmp.Or(g.User, c.User)
		g.Burst, g.Per = cmp.Or(g.Burst, c.Burst), cmp.Or(g.Per, c.Per)
		g.RestartWindow = cmp.Or(g.RestartWindow, c.RestartWindow)
		g.Workers = cmp.Or(g.Workers, c.Workers, n)
		g.Surge = cmp.Or(g.Surge, c.Surge)
		g.KeepOutput = g.KeepOutput || c.KeepOutput
		g.StartTimeout = cmp.Or(g.StartTimeout, c.StartTimeout)
		g.DrainTimeout = cmp.Or(g.DrainTimeout, c.DrainTimeout)
		g.Heartbeat = cmp.Or(g.Heartbeat, c.Heartbeat)
		g.HungAfter = cmp.Or(g.HungAfter, c.HungAfter)
		if !g.Agent {
			g.Ready = cmp.Or(g.Ready, c.Ready)
			g.Health = cmp.Or(g.Health, c.Health)
			g.Recycle = g.Recycle.Or(c.Recycle)
		}
	}
	return all
}

// mainGroup is the one that is meant where none is named, as by TTIN: the first that
// is no agent.
func (c Config) mainGroup() string {
	for _, g := range c.Groups {
		if !g.Agent {
			return g.Name
		}
	}
	if len(c.Groups) > 0 {
		return c.Groups[0].Name
	}
	return webGroup
}

// command reports whether some workers execute a program.
func (c Config) command() bool {
	return slices.ContainsFunc(c.groups(1), func(g Group) bool { return len(g.Command) > 0 })
}

// validateGroups says which group can't work. To a worker, who may be another user than
// its parent, it is all the same.
func (c Config) validateGroups(specs []listen.Spec) error {
	if worker.Inherited() || c.Single {
		return nil
	}
	sockets := map[string]string{}
	for _, s := range specs {
		sockets[s.Name] = s.Kind()
	}
	var errs []error
	for _, g := range c.Groups {
		errs = append(errs, g.validate())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var groups []workerset.Group
	for _, g := range c.groups(1) {
		wg, err := g.workers()
		errs = append(errs, err)
		if len(g.Command) > 0 {
			wg.Program = &workerset.Program{Path: g.Command[0], Umask: g.Program.Umask, Limits: g.Program.Limits}
		}
		groups = append(groups, wg)
	}
	return errors.Join(append(errs, workerset.ValidateGroups(groups, sockets))...)
}

// validate says what a group must not say.
func (g Group) validate() error {
	bad := func(field, format string, args ...any) error {
		return &FieldError{Group: g.Name, Field: field, Err: fmt.Errorf(format, args...)}
	}
	switch err := listen.CheckName(g.Name); {
	case err != nil:
		return &FieldError{Field: "Groups", Err: fmt.Errorf("group %w", err)}
	case g.Agent && g.Workers > 1:
		return bad("Workers", "%d workers, an agent is one", g.Workers)
	case g.Agent && len(g.Sockets) > 0:
		return bad("Sockets", "an agent has no sockets, and this one has %s", strings.Join(g.Sockets, ", "))
	case len(g.Command) > 0 && g.App != nil:
		return bad("Command", "an app and a command, and only one of them can be run")
	}
	return nil
}

// noHealth is a Group's Health that is not to be asked for.
const noHealth = "none"

// healthPaths are what workers are asked for, by group.
func (c Config) healthPaths() map[string]string {
	paths := map[string]string{}
	for _, g := range c.groups(1) {
		if path, ok := strings.CutPrefix(g.Health, "http:"); ok {
			paths[g.Name] = path
		}
	}
	return paths
}

// validateHealth refuses a Health that can't be one, or that nobody can be asked for.
func (c Config) validateHealth() (errs []error) {
	bad := func(group, format string, args ...any) {
		errs = append(errs, &FieldError{Group: group, Field: "Health", Err: fmt.Errorf(format, args...)})
	}
	check := func(group, health string) {
		if r, err := workerset.ParseReadiness(health); err != nil || health != "" && r.By != workerset.ReadyHTTP {
			bad(group, "health %q: write it as http:/PATH", health)
		}
	}
	check("", c.Health)
	for _, g := range c.Groups {
		if g.Health != noHealth {
			check(g.Name, g.Health)
		}
	}
	specs, err := listen.ParseAll(c.Listen)
	if err != nil || len(errs) > 0 {
		return errs // what is wrong with the addresses is said of them
	}
	nobody := "health %q: there is no socket to be asked on: one that accepts connections, for a program over TCP"
	asked := false
	for i, g := range c.groups(1) {
		can := g.Health != "" && g.Health != noHealth && slices.ContainsFunc(specs, func(s listen.Spec) bool {
			has := g.Sockets == nil || slices.Contains(workerset.Expand(g.Sockets, 1), s.Name)
			return has && !s.Packet() && (len(g.Command) == 0 || s.Kind() == "tcp")
		})
		asked = asked || can
		if own := i < len(c.Groups) && c.Groups[i].Health != "" && g.Health != noHealth; own && !can {
			bad(g.Name, nobody, g.Health)
		}
	}
	if c.Health != "" && !asked && len(errs) == 0 {
		bad("", nobody, c.Health)
	}
	return errs
}

// workers is what the worker set makes of a group, without program and queues.
func (g Group) workers() (workerset.Group, error) {
	wg := workerset.Group{
		Name: g.Name, Count: g.Workers, Surge: g.Surge, Sockets: g.Sockets, After: g.After, Args: g.Args, Env: g.Env,
		StartTimeout: g.StartTimeout, DrainTimeout: g.DrainTimeout, Ready: g.Ready, Heartbeat: g.Heartbeat, HungAfter: g.HungAfter,
		Burst: g.Burst, Per: g.Per, MaxRestarts: g.MaxRestarts, RestartWindow: g.RestartWindow,
		KeepFailed: g.KeepFailed, Silent: g.Silent, Recycle: g.Recycle, KeepOutput: g.KeepOutput,
		DrainSignal: g.Program.DrainSignal, ReopenSignal: g.Program.ReopenSignal, NodeChannel: g.Program.NodeChannel, Offer: g.Program.Offer,
	}
	if g.User == "" {
		return wg, nil
	}
	u, err := lookupUser(g.User)
	if err != nil {
		return wg, &FieldError{Group: g.Name, Field: "User", Err: fmt.Errorf("user %q: %w", g.User, err)}
	}
	wg.User = u
	return wg, nil
}

// lookupUser reads "NAME", "NAME:GROUP" or "UID:GID". Of a user that the system knows
// the supplementary groups count, too.
func lookupUser(s string) (*workerset.User, error) {
	name, group, withGroup := strings.Cut(s, ":")
	u, err := knownUser(name)
	if u == nil && err == nil {
		uid, nerr := number(name)
		if nerr != nil {
			return nil, errors.New("there is no such user")
		}
		if !withGroup {
			return nil, errors.New("there is no such user: say which group it is to have, UID:GID")
		}
		u = &workerset.User{UID: uid}
	}
	if err != nil || !withGroup {
		return u, err
	}
	if g, err := user.LookupGroup(group); err == nil {
		group = g.Gid
	}
	if u.GID, err = number(group); err != nil {
		return nil, fmt.Errorf("there is no group %q", group)
	}
	return u, nil
}

// knownUser is one of that name or number, or nil.
func knownUser(name string) (*workerset.User, error) {
	found, err := user.Lookup(name)
	if err != nil {
		if found, err = user.LookupId(name); err != nil {
			return nil, nil
		}
	}
	ids, err := found.GroupIds()
	if err != nil {
		return nil, err
	}
	var n []uint32
	for _, id := range append([]string{found.Uid, found.Gid}, ids...) {
		i, err := number(id)
		if err != nil {
			return nil, err
		}
		n = append(n, i)
	}
	return &workerset.User{UID: n[0], GID: n[1], Groups: n[2:]}, nil
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// app is what a worker of ours runs: its group's App, or the one for all.
func (c Config) app(all worker.App) worker.App {
	return func(ctx context.Context, w *worker.Worker) error {
		for _, g := range c.Groups {
			if g.Name == w.Group() && g.App != nil {
				return g.App(ctx, w)
			}
		}
		return all(ctx, w)
	}
}
