package workerset

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/lifecycle"
)

// This file is about programs with a path, whose parent has died. They do not report: what
// they are followed by was kept for them by whoever starts another parent.

// KeptPrefix begins the names of what Config.Keep is called with.
const KeptPrefix = "worker="

// program is one that a dead parent has left.
type program struct {
	identity   string
	generation int
	recipe     string
	files      map[string]*os.File // named as in an Estate
}

// Take takes in descriptors that were given to Config.Keep, by name. It returns the names of
// those that are of no use, which are closed and are to be forgotten.
func (l *Left) Take(files map[string]*os.File) (useless []string) {
	found := map[string]*program{}
	for name, f := range files {
		kind, identity, recipe, err := parseKept(name)
		if err != nil {
			f.Close()
			useless = append(useless, name)
			continue
		}
		p := found[identity]
		if p == nil {
			_, n, _ := parseIdentity(identity)
			p = &program{identity: identity, generation: n[2], recipe: recipe, files: map[string]*os.File{}}
			found[identity] = p
		}
		p.files[kind+":"+identity] = f
	}
	for identity, p := range found {
		if p.files[kindPidfd+identity] != nil {
			l.programs = append(l.programs, *p)
			continue
		}
		for name := range p.files { // which is of one that has died meanwhile
			kind, _, _ := strings.Cut(name, ":")
			useless = append(useless, keptName(kind, identity, p.recipe))
		}
		closeAll(p.files)
	}
	return useless
}

// keptName is the name of a descriptor, which says all that is known of such a worker.
func keptName(kind, identity, recipe string) string {
	return fmt.Sprintf("%s%s/%s/%s", KeptPrefix, kind, identity, recipe)
}

func parseKept(name string) (kind, identity, recipe string, err error) {
	rest, ok := strings.CutPrefix(name, KeptPrefix)
	kind, rest, ok2 := strings.Cut(rest, "/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || !ok2 || i < 0 || kind == "" {
		return "", "", "", errors.New("not the name of a worker's descriptor")
	}
	identity, recipe = rest[:i], rest[i+1:]
	_, _, err = parseIdentity(identity)
	return kind, identity, recipe, err
}

func closeAll(files map[string]*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// keep has kept what a program is followed by.
func (s *Set) keep(in *incarnation) {
	if s.cfg.Keep == nil || !in.program {
		return
	}
	keep := func(kind string, c syscall.Conn) {
		f, err := dupFile(c, kind)
		if err != nil {
			s.logOf(in).Error("a worker can't be taken over when this process dies", "error", err)
			return
		}
		s.cfg.Keep(keptName(strings.TrimSuffix(kind, ":"), in.identity(), in.recipe), f)
		f.Close()
	}
	keep(kindPidfd, in.proc.Pidfd())
	keep(kindChannel, in.conn)
	keep(kindCrash, in.crash)
	keep(kindNotify, in.inbox)
	for _, st := range in.streams {
		keep(st.name, st.r)
	}
}

// forget is for one that has ended, of whatever generation's parent.
func (s *Set) forget(in *incarnation) {
	if s.cfg.Forget == nil || !in.program || in.proc == nil {
		return
	}
	for _, kind := range []string{kindPidfd, kindChannel, kindCrash, kindNotify, "stdout", "stderr"} {
		s.cfg.Forget(keptName(strings.TrimSuffix(kind, ":"), in.identity(), in.recipe))
	}
}

// takeProgram takes over what a dead parent has left of a program.
func (s *Set) takeProgram(p program) {
	e := Estate{Files: p.files}
	defer e.Close()
	in, err := s.adoptOne(p.identity, e, s.past, postState{})
	if err != nil {
		s.logIdentity(p.identity).Error("a worker that a dead parent has left can't be taken over", "error", err)
		return
	}
	in.program, in.torn, in.recipe = true, 1, p.recipe // half a line may have been read
	ws := s.past.Workers[p.identity]
	if by := in.as.Ready.By; ws.State == lifecycle.Starting.String() && (by == ReadyNotify || by == ReadyChannel) {
		ws.State = "" // the dead parent may have heard that it is ready, which it says once
	}
	s.takeLeft(in, p.recipe, ws)
	if in.foreign() { // what it has said, the dead parent may have read
		s.callsLost(in)
		s.arrived(in)
	}
}
