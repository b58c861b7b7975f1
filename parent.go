package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/run"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// parent is one generation's parent: it composes an upgrader and a worker set,
// which do not know each other.
type parent struct {
	cfg     Config
	log     *slog.Logger
	up      *upgrader.Upgrader
	set     *workerset.Set
	sockets []*upgrader.Socket

	control  *upgrader.Socket // nil if there is none
	server   *control.Server
	upgrades *upgrades
	since    time.Time // when this process began to decide
	program  string    // what the workers execute

	legacy upgrader.Legacy // given away in an upgrade under way
	atOnce atomic.Int32    // the signal that asked to stop at once

	decides atomic.Bool // since the commit
}

// parent runs this process as the parent and returns its exit code.
func (c Config) parent() (int, error) {
	fault.Point(fault.NewBegins)
	p := &parent{cfg: c, log: c.Logger}
	p.upgrades = newUpgrades(p)
	if err := launch.BecomeSubreaper(); err != nil {
		return 1, err
	}
	stopReaping := make(chan struct{})
	reaped := make(chan struct{})
	go func() { defer close(reaped); launch.ReapOrphans(stopReaping) }()
	defer func() { close(stopReaping); <-reaped }()

	quota := make(chan int, 1)
	go func() { quota <- cpus() }()
	var err error
	p.up, err = upgrader.New(upgrader.Config{
		PIDFile: c.PIDFile, Timeout: c.UpgradeTimeout, Title: c.Name + ": parent",
		Yield: p.yield, Resume: p.resume, Take: p.take, Progress: p.upgrades.step, Logger: c.Logger,
	})
	if err != nil {
		return exitCode(err), err
	}
	defer p.up.Stop()
	if err := p.build(<-quota); err != nil {
		p.up.Fail(err)
		return exitCode(err), err
	}

	fault.Point(fault.NewBuilt)
	// The trial worker is being started meanwhile.
	ended := make(chan error, 1)
	go func() { ended <- p.set.Run() }()

	// Installed before the PID file or a supervisor can direct anything here; the
	// actions run once the group does.
	sigctx, release := context.WithCancel(context.Background())
	defer release()
	actOnSignals, interruptSignals := signals.Actor(sigctx, p.signals(),
		signals.Logger(p.log), signals.AtOnce(p.killAll), signals.Late(p.relay))

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var g run.Group
	g.Add(func() error { return <-ended }, func(error) { p.stopSet() })
	g.Add(actOnSignals, interruptSignals)
	g.Add(func() error { return p.serve(ctx) }, func(error) { cancel() })
	err = g.Run()

	if n := p.atOnce.Load(); n != 0 {
		return 128 + int(n), nil
	}
	if err == nil || errors.Is(err, signals.ErrStop) || errors.Is(err, context.Canceled) {
		p.logStop()
		return 0, nil
	}
	return exitCode(err), err
}

func exitCode(err error) int {
	if errors.Is(err, ErrConfig) || errors.Is(err, workerset.ErrConfig) {
		return 2
	}
	return 1
}

// build opens the sockets and makes the worker set, for so many CPUs.
func (p *parent) build(n int) error {
	specs, err := listen.ParseAll(p.cfg.Listen)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	fds := map[string]int{}
	for _, spec := range specs {
		s, err := p.up.Open(spec.Name, spec.Network, spec.Addr)
		if err != nil {
			return err
		}
		if len(p.cfg.Command) > 0 {
			if err := s.MakeBlocking(); err != nil {
				return err
			}
		}
		p.sockets = append(p.sockets, s)
		fds[spec.Name] = s.Fd()
	}
	if err := p.openControl(); err != nil {
		return err
	}
	workers := p.cfg.Workers
	if workers == 0 {
		workers = n
	}
	stdout, stderr := p.up.Stdio()
	program, err := p.cfg.program()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	p.set, err = workerset.New(workerset.Config{
		Name:       p.cfg.Name,
		Program:    program,
		Generation: p.up.Generation(),
		Groups: []workerset.Group{{
			Name: webGroup, Count: workers, Surge: p.cfg.Surge,
			StartTimeout: p.cfg.StartTimeout, DrainTimeout: p.cfg.DrainTimeout,
			Ready: p.cfg.Ready, Heartbeat: p.cfg.Heartbeat, HungAfter: p.cfg.HungAfter,
			DrainSignal: p.cfg.Program.DrainSignal, ReopenSignal: p.cfg.Program.ReopenSignal,
			NodeChannel: p.cfg.Program.NodeChannel,
		}},
		Sockets: fds, Stdout: stdout, Stderr: stderr, Output: p.cfg.Program.Output, CPUs: n,
		MaxRestarts: p.cfg.MaxRestarts, Trial: true, Started: p.entrust, Observe: p.observe, Logger: p.log,
	})
	if p.program = program.Path; p.program == "" {
		p.program, _ = os.Executable()
	}
	return err
}

// program is what the workers of this generation execute: the command as it is
// found now. A symbolic link in its path, or in the working directory's, may lead
// elsewhere by the next generation.
func (c Config) program() (workerset.Program, error) {
	if len(c.Command) == 0 {
		return workerset.Program{}, nil
	}
	found, err := exec.LookPath(c.Command[0])
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err != nil {
		return workerset.Program{}, fmt.Errorf("program %q: %w", c.Command[0], err)
	}
	path, err := filepath.EvalSymlinks(found)
	if err != nil {
		return workerset.Program{}, fmt.Errorf("program %s: %w", found, err)
	}
	dir, err := os.Getwd()
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return workerset.Program{}, fmt.Errorf("working directory: %w", err)
	}
	// Some programs find what belongs to them by the name that they are called by.
	return workerset.Program{
		Path: path, Name: found, Args: c.Command[1:], Dir: dir,
		Umask: c.Program.Umask, Limits: c.Program.Limits,
	}, nil
}

// serve brings this generation up, decides, and returns when another does.
func (p *parent) serve(ctx context.Context) error {
	if err := p.set.Ready(ctx); err != nil {
		p.up.Fail(err)
		return err
	}
	dropped := p.up.Dropped()
	fault.Point(fault.NewPrepared)
	if _, err := p.up.Ready(ctx); err != nil {
		return err
	}
	fault.Point(fault.NewCommitted)
	// The next upgrade may come before this one has replaced all workers.
	under, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { p.release(under); p.roll(under, dropped) })
	tasks.Go(func() { p.upgrades.run(ctx) })
	select {
	case <-p.up.Replaced():
	case <-ctx.Done():
	}
	cancel()
	tasks.Wait()
	// A stop and the end of an upgrade may come together: what counts is who decides.
	select {
	case <-p.up.Replaced():
		p.set.Abandon()
	default:
		_ = sdnotify.Send("STOPPING=1")
	}
	if p.server != nil {
		p.server.Close()
	}
	return nil
}

// holdTime bounds the wait for the predecessor's end, which is a matter of
// milliseconds unless it is stopped.
const holdTime = time.Second

// release lets the roll begin once the predecessor can't go on instead any more: with
// its own workers it could do so at once, and what this generation starts would have
// to be drained.
func (p *parent) release(ctx context.Context) {
	select {
	case <-p.up.Alone():
	case <-time.After(holdTime):
	case <-ctx.Done():
	}
	p.set.Release()
}

// roll waits until this generation's workers have replaced those before, and
// closes the sockets that are not in its configuration: nobody may come to them
// any more, but whoever has, is served.
func (p *parent) roll(ctx context.Context, dropped []*upgrader.Socket) {
	switch err := p.set.Ready(ctx); {
	case err == nil:
		p.upgrades.settled(nil)
		p.log.Info("generation serves", "generation", p.up.Generation(), "pid", os.Getpid())
		if p.up.Generation() == 1 && p.cfg.Started != nil {
			p.cfg.Started(p.info(ctx))
		}
	case errors.Is(err, workerset.ErrRollStopped):
		p.upgrades.settled(err)
		p.log.Error("this generation decides, but does not serve alone", "error", err)
	default:
		return
	}
	if len(dropped) == 0 || p.set.Drained(ctx) != nil {
		return
	}
	for _, s := range dropped {
		p.log.Info("socket closed, it is not in this generation's configuration", "socket", s.Name())
		s.Close()
	}
}

func (p *parent) info(ctx context.Context) Info {
	info := Info{Pid: os.Getpid()}
	if pid, err := strconv.Atoi(os.Getenv(anchor.EnvPid)); err == nil {
		info.Pid = pid
	}
	info.Listen = p.listening()
	if st, err := p.set.Status(ctx); err == nil {
		for _, g := range st.Groups {
			info.Workers += g.Count
		}
	}
	return info
}

// listening are the sockets' addresses as they were bound.
func (p *parent) listening() (list []string) {
	for _, s := range p.sockets {
		if a := s.Addr(); a != nil {
			list = append(list, fmt.Sprintf("%s=%s://%s", s.Name(), a.Network(), a))
		}
	}
	return list
}

// webGroup is the name of the one group of workers.
const webGroup = "web"

// scaleBy is what TTIN and TTOU ask for.
func (p *parent) scaleBy(n int) signals.Action {
	return func(ctx context.Context) error {
		count, err := p.set.ScaleBy(ctx, webGroup, n)
		if err == nil {
			p.log.Info("scaled", "group", webGroup, "count", count)
		}
		return err
	}
}

// signals says what each signal means.
func (p *parent) signals() signals.Map {
	m := signals.Map{
		syscall.SIGHUP: p.upgrade, syscall.SIGUSR2: p.upgrade,
		syscall.SIGTERM: signals.Stop, syscall.SIGINT: signals.Stop,
		syscall.SIGUSR1: p.set.Reopen, syscall.SIGTTIN: p.scaleBy(1),
	}
	if signals.StopsOutput() {
		p.log.Warn("TTOU is not caught: this terminal sends it for output from the background (stty tostop)")
	} else {
		m[syscall.SIGTTOU] = p.scaleBy(-1)
	}
	return m
}

// upgrade is what HUP asks for.
func (p *parent) upgrade(ctx context.Context) error {
	a := ask{done: make(chan error, 1)}
	p.upgrades.want(a)
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *parent) yield(ctx context.Context) (upgrader.Legacy, error) {
	fault.Point(fault.OldPrepared)
	if p.server != nil {
		p.server.Pause()
	}
	e, err := p.set.Yield(ctx)
	if err != nil {
		p.answer()
		return upgrader.Legacy{}, err
	}
	l := upgrader.Legacy{Files: p.upgrades.give()}
	for name, f := range e.Files {
		l.Files = append(l.Files, upgrader.NamedFile{Name: name, File: f})
	}
	p.legacy = l
	fault.Point(fault.OldYielded)
	l.State, err = json.Marshal(parentState{
		Version: 1, Set: e.State,
		Upgrade: &control.Outcome{Time: time.Now(), Generation: p.up.Generation() + 1, Result: control.Rolling},
	})
	return outgoing(l), err
}

// outgoing and incoming are what travels between two parents, on the side that gives
// it and on the one that gets it. They are variables for the tests, in which parents
// are of other versions.
var outgoing, incoming = asItIs, asItIs

func asItIs(l upgrader.Legacy) upgrader.Legacy { return l }

// take makes this generation's workers accept, decides about those of the one
// before, and answers whoever asks.
func (p *parent) take(l upgrader.Legacy) {
	p.decides.Store(true)
	p.since = time.Now()
	if p.up.HasPredecessor() {
		p.set.Hold()
	}
	_ = p.set.Commit(context.Background(), p.sort(incoming(l))) // fails only when the set has ended
	p.answer()
	fault.Point(fault.NewTook)
}

// entrust tells the predecessor whom it has to drain if this generation fails.
func (p *parent) entrust(s workerset.Started) {
	err := p.up.Entrust(upgrader.Ward{
		Pid: s.Pid, Pidfd: s.Pidfd, Output: s.Output, Signal: s.DrainSignal, Timeout: s.DrainTimeout,
	})
	if err != nil {
		p.log.Warn("the previous parent could not be told of a worker: it is killed if the upgrade fails", "pid", s.Pid, "error", err)
	}
}

// stopSet drains the workers. Before the commit they are the predecessor's care: it
// drains what has begun to serve, and the others see their channels end.
func (p *parent) stopSet() {
	if p.up.HasPredecessor() && !p.decides.Load() {
		p.set.Abandon()
		return
	}
	p.set.Stop()
}

func (p *parent) resume() {
	p.set.Resume()
	p.legacy.Close()
	p.upgrades.takeBack()
	p.answer()
}

// relay passes on what reaches this process after it has been replaced. Stops are
// not passed on: systemd sends them to every process of the service, the anchor to
// the new parent again, and a second one would mean "at once".
func (p *parent) relay(sig os.Signal) {
	if sig != syscall.SIGTERM && sig != syscall.SIGINT && p.up.Relay(sig) {
		p.log.Info("signal passed on to the new parent", "signal", sig.String())
	}
}

// killAll is the second request to stop.
func (p *parent) killAll(sig os.Signal) {
	n, _ := sig.(syscall.Signal)
	if p.set == nil || !p.atOnce.CompareAndSwap(0, int32(n)) {
		os.Exit(128 + int(n))
	}
	p.set.Kill()
}

func (p *parent) logStop() {
	select {
	case <-p.up.Replaced():
		return
	default:
	}
	r := p.set.StopReport()
	p.log.Info("stopped", "workers", r.Exited, "cut connections", r.Cut, "terminated", r.Terminated, "killed", r.Killed)
}
