package handover

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// webGroup is the name of the one group of workers.
const webGroup = "web"

// build opens the sockets and makes the worker set, for so many CPUs.
func (p *parent) build(n int) error {
	specs, err := listen.ParseAll(p.cfg.Listen)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	fds, queues := map[string]int{}, map[string]workerset.Queue{}
	for _, spec := range specs {
		s, err := p.up.Open(spec.Name, spec.Network, spec.Addr)
		if err != nil {
			return err
		}
		if err := p.cfg.prepare(s); err != nil {
			return err
		}
		p.sockets = append(p.sockets, s)
		fds[spec.Name] = s.Fd()
		if len(p.cfg.Command) == 0 && (spec.Kind() == "tcp" || spec.Kind() == "unix") {
			give, take, err := p.up.Queue(spec.Name)
			if err != nil {
				return err
			}
			queues[spec.Name] = workerset.Queue{Give: give, Take: take}
		}
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
			Name: webGroup, Count: workers, Surge: p.cfg.Surge, Queues: queues,
			StartTimeout: p.cfg.StartTimeout, DrainTimeout: p.cfg.DrainTimeout,
			Ready: p.cfg.Ready, Heartbeat: p.cfg.Heartbeat, HungAfter: p.cfg.HungAfter,
			DrainSignal: p.cfg.Program.DrainSignal, ReopenSignal: p.cfg.Program.ReopenSignal,
			NodeChannel: p.cfg.Program.NodeChannel, Offer: p.cfg.Program.Offer,
		}},
		Sockets: fds, Stdout: stdout, Stderr: stderr, Output: p.cfg.Program.Output, CPUs: n,
		StopDelay: p.cfg.StopDelay, MaxRestarts: p.cfg.MaxRestarts, Trial: true, Started: p.entrust, Observe: p.observe, Logger: p.log,
	})
	if p.program = program.Path; p.program == "" {
		p.program, _ = os.Executable()
	}
	return err
}

// prepare makes a socket what a program expects: blocking, as systemd passes it, unless
// Node gets it in a message, which takes for granted that it is not.
func (c Config) prepare(s *upgrader.Socket) error {
	switch p := c.Program; {
	case len(c.Command) == 0:
		return nil
	case p.NodeChannel == workerset.NodeCluster, p.Offer == workerset.OfferMessage:
		return s.MakeNonblocking()
	}
	return s.MakeBlocking()
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
