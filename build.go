package handover

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/shortage"
	"github.com/handover-go/handover/tickets"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// build opens the sockets and makes the worker set, for so many CPUs.
func (p *parent) build(n int) error {
	specs, err := listen.ParseAll(p.cfg.Listen)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	groups := p.cfg.groups(n)
	p.made = recipe{Generation: p.up.Generation(), Source: p.cfg.Source}
	if p.back != nil {
		p.made.Generation = p.back.Recipe.Generation
	}
	p.probation = p.newProbation()
	fds := map[string]int{}
	for _, spec := range specs {
		s, err := p.up.Open(spec.Name, spec.Network, spec.Addr)
		if err != nil {
			return err
		}
		if err := prepare(s, programsOf(groups, spec.Name)); err != nil {
			return err
		}
		p.sockets = append(p.sockets, s)
		fds[spec.Name] = s.Fd()
	}
	if err := p.openControl(); err != nil {
		return err
	}
	if err := p.openStatus(); err != nil {
		return err
	}
	cfg := workerset.Config{
		Name: p.cfg.Name, Generation: p.up.Generation(), Sockets: fds, Output: p.cfg.Program.Output, CPUs: n,
		StopDelay: p.cfg.StopDelay, Grace: p.cfg.Grace, MaxRestarts: p.cfg.MaxRestarts, RestartWindow: p.cfg.RestartWindow, Forbear: p.upgrades.leadsBack, Trial: true,
		Started: p.entrust, Found: p.supervisor.found, Keep: p.supervisor.keeps, Forget: p.supervisor.forgets, Observe: p.observe, Events: p.cfg.Events, Printed: p.printed, Logger: p.log,
	}
	cfg.Stdout, cfg.Stderr = p.up.Stdio()
	for _, g := range groups {
		wg, err := p.group(g, specs)
		if shortage.Is(err) {
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		cfg.Groups = append(cfg.Groups, wg)
		p.builds.pin(p.cfg, g, wg.Program.Path)
		if g.Name == p.cfg.mainGroup() {
			p.program = wg.Program.Path
		}
	}
	if err := p.memory.open(); err != nil {
		return err
	}
	p.files = append(p.files, p.memory.file)
	p.goOn(&cfg)
	if p.set, err = workerset.New(cfg); err != nil {
		cfg.Left.Close()
	} else {
		for typ, h := range p.cfg.Handlers {
			p.set.Messages().Handle(typ, h)
		}
	}
	if p.program == "" {
		p.program, _ = os.Executable()
		if p.back != nil { // which is a copy without a name
			p.program, _ = p.up.Program()
		}
	}
	return err
}

// group is what the worker set makes of one of this generation's groups.
func (p *parent) group(g Group, specs []listen.Spec) (workerset.Group, error) {
	wg, err := g.workers()
	if err != nil {
		return wg, err
	}
	program, err := p.programOf(g)
	if err != nil {
		return wg, err
	}
	wg.Program = &program
	p.pin(g.Name, program)
	if len(g.Command) == 0 && p.cfg.Source != nil {
		wg.Env = append(wg.Env[:len(wg.Env):len(wg.Env)], envSource+"="+string(p.cfg.Source))
	}
	if len(g.Command) == 0 {
		if wg.Tickets, err = p.tickets(g); err != nil {
			return wg, err
		}
		if wg.Home, err = p.home(g.Name); err != nil {
			return wg, err
		}
	}
	wg.Queues = map[string]workerset.Queue{}
	for _, spec := range specs {
		if len(g.Command) > 0 || !g.has(spec.Name) || spec.Kind() != "tcp" && spec.Kind() != "unix" {
			continue
		}
		give, take, err := p.up.Queue(g.queue(spec.Name))
		if err != nil {
			return wg, err
		}
		wg.Queues[spec.Name] = workerset.Queue{Give: give, Take: take}
	}
	return wg, nil
}

// tickets is the descriptor of the file by which a group's workers, of this generation and
// of others, share the keys of their session tickets. Other groups have others: who has the
// keys can pretend to be any client.
func (p *parent) tickets(g Group) (fd int, err error) {
	f, err := p.up.KeptFile("handover.tickets."+g.Name, tickets.File)
	if err != nil {
		return 0, err
	}
	p.files = append(p.files, f)
	return launch.Fd(f)
}

// has reports whether all of a group's workers have a socket.
func (g Group) has(socket string) bool {
	return g.Sockets == nil || slices.Contains(g.Sockets, socket)
}

// queue is the name of the queue by which connections of a socket move between the
// workers of a group: to those of another they never go, which may be another program.
// It depends on nothing else, so that it is the same one in the next generation.
func (g Group) queue(socket string) string {
	if g.Name == webGroup {
		return socket
	}
	return g.Name + "/" + socket
}

// programsOf are the programs that share a socket with nobody else, or none.
func programsOf(groups []Group, socket string) (programs []ProgramConfig) {
	for _, g := range groups {
		shares := g.Sockets == nil
		for slot := 1; slot <= g.Workers; slot++ {
			shares = shares || slices.Contains(workerset.Expand(g.Sockets, slot), socket)
		}
		switch {
		case shares && len(g.Command) == 0:
			return nil
		case shares:
			programs = append(programs, g.Program)
		}
	}
	return programs
}

// prepare makes a socket what programs expect: blocking, as systemd passes it, unless
// Node gets it in a message, which takes for granted that it is not. It is one flag for
// all who share it.
func prepare(s *upgrader.Socket, programs []ProgramConfig) error {
	inMessage := func(p ProgramConfig) bool {
		return p.NodeChannel == workerset.NodeCluster || p.Offer == workerset.OfferMessage
	}
	switch {
	case len(programs) == 0:
		return nil
	case slices.ContainsFunc(programs, inMessage):
		return s.MakeNonblocking()
	}
	return s.MakeBlocking()
}

// programOf is what a group executes: on the way back, what it did in the generation that is
// gone back to.
func (p *parent) programOf(g Group) (workerset.Program, error) {
	if p.back == nil {
		return p.cfg.program(g)
	}
	pin, ok := p.back.Recipe.Programs[g.Name]
	if !ok || (pin.Path == "") != (len(g.Command) == 0) {
		return p.cfg.program(g)
	}
	if pin.Path != "" {
		if _, err := exec.LookPath(pin.Path); err != nil {
			return workerset.Program{}, p.cfg.fieldError(g, "Command", "program of generation %d: %w", p.back.Recipe.Generation, err)
		}
	}
	return g.programAt(pin), nil
}

// program is what a group's workers execute in this generation: the command as it is
// found now. A symbolic link in its path, or in the working directory's, may lead
// elsewhere by the next generation.
func (c Config) program(g Group) (workerset.Program, error) {
	bad := func(field, format string, args ...any) (workerset.Program, error) {
		return workerset.Program{}, c.fieldError(g, field, format, args...)
	}
	dir, err := g.dir()
	if err != nil {
		return bad("Dir", "working directory: %w", err)
	}
	if len(g.Command) == 0 {
		return g.programAt(location{Dir: dir}), nil
	}
	name := g.Command[0]
	if strings.Contains(name, "/") {
		name = below(g.Dir, name)
	}
	found, err := exec.LookPath(name)
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err != nil {
		return bad("Command", "program %q: %w", g.Command[0], err)
	}
	path, err := filepath.EvalSymlinks(found)
	if err != nil {
		return bad("Command", "program %s: %w", found, err)
	}
	// Some programs find what belongs to them by the name that they are called by.
	return g.programAt(location{Path: path, Name: found, Dir: dir}), nil
}

// programAt is the program that was found there, or this one.
func (g Group) programAt(p location) workerset.Program {
	if p.Path == "" {
		return workerset.Program{Dir: p.Dir}
	}
	return workerset.Program{
		Path: p.Path, Name: p.Name, Args: g.Command[1:], Dir: p.Dir,
		Umask: g.Program.Umask, Limits: g.Program.Limits,
	}
}

// fieldError is about a group's field, or about the Config's where there are no groups.
func (c Config) fieldError(g Group, field, format string, args ...any) error {
	e := &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
	if len(c.Groups) > 0 {
		e.Group = g.Name
	}
	return e
}

// dir is where a group's workers begin, "" for those of this binary that are to begin
// where this process has.
func (g Group) dir() (string, error) {
	dir := g.Dir
	if dir == "" && len(g.Command) == 0 {
		return "", nil
	}
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return "", err
		}
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return "", cmp.Or(err, error(&os.PathError{Op: "chdir", Path: dir, Err: syscall.ENOTDIR}))
	}
	return dir, nil
}
