package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// controlName is the name of the control socket among the service's others.
const controlName = "handover.control"

// openControl opens the control socket, if there is to be one.
func (p *parent) openControl() error {
	if p.cfg.Control == "" {
		return nil
	}
	path := control.Path(p.cfg.Control, p.cfg.Name)
	switch err := control.Prepare(path); {
	case errors.Is(err, control.ErrNowhere): // which is no reason not to serve
		p.log.Warn("no control socket: 'handover status' and 'handover upgrade' find nobody", "error", err)
		return nil
	case err != nil:
		return err
	}
	gid, err := p.controlGroup(path)
	if err != nil {
		return err
	}
	p.share = func() error { return control.Share(path, gid) }
	// From its first moment on it is this user's alone.
	mask := syscall.Umask(0o177)
	s, err := p.up.Open(controlName, "unix", path)
	syscall.Umask(mask)
	if err == nil && !p.up.HasPredecessor() {
		err = p.share()
	}
	switch {
	case errors.Is(err, listen.ErrNoSocket):
		return fmt.Errorf("control socket %s: %w: move it away, or say another path", path, listen.ErrNoSocket)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("control socket %s: %w: another service of this name? Give one of them another name, or another control socket", path, syscall.EADDRINUSE)
	case err != nil:
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	srv := control.NewServer(p, p.log)
	if gid >= 0 {
		srv.LetRead()
	}
	p.addDoor(s, srv)
	return nil
}

// controlGroup is the group that may read on the control socket, or -1.
func (p *parent) controlGroup(path string) (gid int, err error) {
	name := p.cfg.ControlGroup
	if name == "" {
		return -1, nil
	}
	if control.Private(path) {
		return -1, fmt.Errorf("%w: control group %q: nobody else gets to %s: say --control PATH, in a directory that the group may search", ErrConfig, name, path)
	}
	number := name
	if g, err := user.LookupGroup(name); err == nil {
		number = g.Gid
	}
	if gid, err = strconv.Atoi(number); err != nil || gid < 0 {
		return -1, fmt.Errorf("%w: control group %q: there is no such group", ErrConfig, name)
	}
	return gid, nil
}

// shareAnew gives the control socket to those who may have it in this generation.
func (p *parent) shareAnew() {
	if p.share == nil {
		return
	}
	if err := p.share(); err != nil {
		p.log.Error("who may use the control socket could not be changed", "error", err)
	}
}

// Upgrade is what a watcher asks for.
func (p *parent) Upgrade(w *control.Watcher, wait control.Wait) {
	p.upgrades.want(ask{watcher: w, wait: wait})
}

// Rollback is the way back, because somebody has asked for it.
func (p *parent) Rollback(w *control.Watcher, wait control.Wait) {
	p.upgrades.want(ask{watcher: w, wait: wait, back: &back{Reason: "somebody has asked for it"}})
}

// Status says how the service is.
func (p *parent) Status(ctx context.Context) (control.Status, error) {
	p.set.Refresh(ctx)
	set, err := p.set.Status(ctx)
	if err != nil {
		return control.Status{}, err
	}
	p.meter.Measure(&set)
	st := control.Status{
		Service: p.cfg.Name, Generation: set.Generation, Since: p.since, Pid: os.Getpid(),
		Program: p.program, Listen: p.listening(), Groups: set.Groups, Stopping: set.Stopping,
		Build: p.builds.running(), Warnings: p.builds.warnings(p.up.Program),
	}
	// It keeps its pid as long as it lives, and is this process's ancestor.
	if pid, err := strconv.Atoi(os.Getenv(anchor.EnvPid)); err == nil && syscall.Kill(pid, 0) == nil {
		st.Anchor = pid
	}
	st.Upgrade, st.Upgrading = p.upgrades.outcome()
	st.Previous = p.upgrades.wayBack()
	return st, nil
}

// Ready says whether clients should come, and why not.
func (p *parent) Ready(ctx context.Context) (ready bool, why string) {
	st, err := p.set.Status(ctx)
	if err != nil {
		return false, err.Error()
	}
	return st.Ready()
}

// observe counts, and tells those who watch an upgrade about the workers.
func (p *parent) observe(c workerset.Change) {
	p.metrics.Observe(c)
	p.supervisor.look()
	p.memory.look()
	w := c.Worker
	p.probation.saw(w)
	p.stops.observe(c)
	if w.State == "exited" {
		p.died(w)
	}
	if text := step(w); text != "" {
		p.upgrades.rolled(text)
		p.wishes.tell(text)
	}
}

// step is what somebody who waits for workers to be replaced is told of one.
func step(w workerset.Worker) string {
	name := fmt.Sprintf("worker %s/%d", w.Group, w.Slot)
	switch {
	case w.State == "serving" && !w.Stale:
		return fmt.Sprintf("%s serves, pid %d", name, w.Pid)
	case w.State == "draining" && (w.Stale || w.Cause == ""):
		return fmt.Sprintf("%s of generation %d drains, pid %d", name, w.Generation, w.Pid)
	case w.State == "exited" && w.Cause != "" && !w.Stale:
		return fmt.Sprintf("%s: %s: %s", name, w.Cause, w.Reason)
	}
	return ""
}

// parentState is what travels to the next parent besides descriptors. It is
// versioned by adding fields only.
type parentState struct {
	Version int              `json:"v"`
	Set     json.RawMessage  `json:"set"`
	Upgrade *control.Outcome `json:"upgrade,omitempty"`
	// Previous is the generation that can be gone back to. Its binary is a file of that
	// name, and this process's own if there is none.
	Previous *recipe `json:"previous,omitempty"`
	// Wishes are those that go on, by their watchers' connections.
	Wishes  map[string]givenWish `json:"wishes,omitempty"`
	Metrics json.RawMessage      `json:"metrics,omitempty"`
}

// filePrevious is the name of that file.
const filePrevious = "previous"

// sort parts what a predecessor has left into the workers, the wishes, by their watchers'
// connections, and the rest, which it takes in.
func (p *parent) sort(l upgrader.Legacy) (e workerset.Estate, wishes map[*os.File]givenWish) {
	e, wishes = workerset.Estate{Files: map[string]*os.File{}, State: l.State}, map[*os.File]givenWish{}
	var st parentState
	if err := json.Unmarshal(l.State, &st); err == nil && len(st.Set) > 0 {
		e.State = st.Set // else it is all of the state, as in the first version
		p.upgrades.last = st.Upgrade
	}
	p.takeMetrics(st.Metrics)
	var exe *os.File
	for _, f := range l.Files {
		w, wished := st.Wishes[f.Name]
		switch {
		case wished:
			wishes[f.File] = w
		case strings.HasPrefix(f.Name, "watch:"):
			p.upgrades.take(f.Name, f.File)
		case f.Name == filePrevious:
			exe = f.File
		case !p.takeRecords(f.Name, f.File):
			e.Files[f.Name] = f.File
		}
	}
	p.upgrades.canGoBack(st.Previous, exe)
	return e, wishes
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
