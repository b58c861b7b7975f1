package handover

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/run"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/metrics"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/shortage"
	"github.com/handover-go/handover/internal/threads"
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
	files   []*os.File // that the set needs

	doors    []door
	metrics  *metrics.Metrics
	released chan struct{} // closed when no predecessor can go on instead any more
	share    func() error  // gives the control socket to those who may have it; nil: there is none
	upgrades *upgrades
	wishes   *wishes
	stops    *stops
	records  records
	memory   *memory
	builds   builds
	meter    workerset.Meter
	since    time.Time // when this process began to decide
	program  string    // what the workers execute

	made      recipe     // what this generation is made of
	resumes   bool       // it goes on with the workers of a parent that has died
	back      *back      // this generation is one that is gone back to
	probation *probation // nil if it has none

	legacy upgrader.Legacy // given away in an upgrade under way
	atOnce atomic.Int32    // the signal that asked to stop at once

	decides atomic.Bool // since the commit

	supervisor *supervisor
}

// spareThreads is how many goroutines of a parent may wait in system calls when no more threads
// may be started. On a busy machine it had up to ten threads without, where six were enough
// when all was quiet, and has twelve with these.
const spareThreads = 6

// parent runs this process as the parent and returns its exit code.
func (c Config) parent() (code int, err error) {
	fault.Point(fault.NewBegins)
	// Nobody reads this one: it keeps a log whose reader has gone, journald or a pipe, from
	// ending the service (os/signal, "SIGPIPE"). To ignore the signal would be inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	// A panic is an ABRT: its exit code would be the one of a bad configuration, after which
	// supervisors start nothing again (runtime, "Environment Variables", GOTRACEBACK).
	debug.SetTraceback("crash")
	if errBack != nil {
		return 2, errBack // the upgrade fails, and nothing has changed
	}
	p := &parent{cfg: c, log: c.Logger.With("service", c.Name), metrics: metrics.New(), released: make(chan struct{}), back: goesBack}
	p.upgrades, p.wishes, p.stops, p.memory = newUpgrades(p), newWishes(p), newStops(p), newMemory(p)
	if p.supervisor, err = newSupervisor(p); err != nil {
		return 2, err
	}
	defer func() { p.lastWord(err) }()
	if err := launch.BecomeSubreaper(); err != nil {
		return 1, err
	}
	stopReaping := make(chan struct{})
	reaped := make(chan struct{})
	go func() { defer close(reaped); launch.ReapOrphans(stopReaping) }()
	defer func() { close(stopReaping); <-reaped }()

	quota := make(chan int, 1)
	go func() { quota <- cpus() }()
	p.up, err = upgrader.New(upgrader.Config{
		PIDFile: c.PIDFile, Timeout: c.UpgradeTimeout, Title: c.Name + ": parent",
		Yield: p.yield, Resume: p.resume, Take: p.take, Progress: p.upgrades.step, Logger: p.log,
	})
	if err != nil {
		return exitCode(err), err
	}
	defer p.up.Stop()
	launch.OwnDescriptors() // the upgrader has taken what was passed
	defer func() {
		for _, f := range p.files {
			f.Close()
		}
	}()
	p.log = c.Logger.With("generation", p.up.Generation(), "service", c.Name)
	if err := shortage.Explain(p.build(<-quota)); err != nil {
		p.up.Fail(err)
		return exitCode(err), err
	}

	fault.Point(fault.NewBuilt)
	// The trial worker is being started meanwhile.
	ended := make(chan error, 1)
	go func() { ended <- p.set.Run() }()
	threads.Keep(spareThreads)
	if !p.up.HasPredecessor() {
		p.supervisor.begin()
	}
	defer p.supervisor.end()

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
	g.Add(p.stops.actor())
	g.Add(func() error { return p.serve(ctx) }, func(error) { cancel() })
	err = g.Run()
	inOrder := err == nil || errors.Is(err, signals.ErrStop) || errors.Is(err, context.Canceled)
	if inOrder {
		p.forgetSource()
		p.stops.end(nil)
	} else {
		p.stops.end(err)
	}
	p.closeDoors() // nothing is left to ask about

	if n := p.atOnce.Load(); n != 0 {
		return 128 + int(n), nil
	}
	if inOrder {
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

// serve brings this generation up, decides, and returns when another does.
func (p *parent) serve(ctx context.Context) error {
	ready := p.set.Ready
	if p.resumes { // then the service has never stopped
		ready = p.set.Serves
	}
	if err := ready(ctx); err != nil {
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
	if p.probation != nil {
		tasks.Go(func() { p.probation.run(under) })
	}
	tasks.Go(func() { p.upgrades.run(ctx) })
	p.memory.look()
	tasks.Go(func() { p.memory.run(under) })
	if p.cfg.InParent != nil {
		tasks.Go(func() { p.cfg.InParent(under, p.set.Messages()) })
	}
	select {
	case <-p.up.Replaced():
	case <-ctx.Done():
	}
	cancel()
	tasks.Wait()
	p.wishes.end()
	// A stop and the end of an upgrade may come together: what counts is who decides.
	select {
	case <-p.up.Replaced():
		p.set.Abandon()
		p.closeDoors() // the successor answers
	default:
	}
	return nil
}

// lastWord tells the supervisor why the service ends, unless that is in order.
func (p *parent) lastWord(err error) {
	if err != nil && p.up != nil && (!p.up.HasPredecessor() || p.decides.Load()) {
		p.supervisor.send(append(sdnotify.Errno(err), sdnotify.Status(err.Error())))
	}
}

// roll waits until this generation's workers have replaced those before, and
// closes the sockets that are not in its configuration: nobody may come to them
// any more, but whoever has, is served.
func (p *parent) roll(ctx context.Context, dropped []*upgrader.Socket) {
	switch err := p.set.Ready(ctx); {
	case err == nil:
		p.upgrades.settled(nil)
		p.log.Info("generation serves", "pid", os.Getpid())
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
	select {
	case <-p.upgrades.over: // the way back leads to them, too
	case <-ctx.Done():
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
			if len(g.Sockets) > 0 {
				info.Workers += g.Count
			}
		}
	}
	return info
}

func (p *parent) logStop() {
	select {
	case <-p.up.Replaced():
		return
	default:
	}
	r := p.set.StopReport()
	p.log.Info("stopped", "workers", r.Exited, "cut", r.Cut, "terminated", r.Terminated, "killed", r.Killed)
}
