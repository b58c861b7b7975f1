//go:build unix

// Package configfile makes a handover.Config of a file, of environment variables and of
// flags, or says what is wrong with them and where. It does no I/O: the texts are given to it.
//
// Each thing that can be said is a row of one table, Keys: with its name it is a key of the
// file, a flag of "handover run", and an environment variable.
package configfile

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/workerset"
)

// Settings are what a service is run with.
type Settings struct {
	handover.Config
	Log       string // form of the log: "text" or "json"
	RawOutput bool   // what programs print goes through as it is
}

// Input is where settings come from. Flags win over the environment, that over the file, and
// that over the defaults.
type Input struct {
	File    string              // name of the file, for messages; "": there is none
	Text    []byte              // its content
	Dir     string              // the file's directory, absolute: directories in it are relative to it
	Here    string              // the working directory, absolute: those of flags are relative to it
	Environ []string            // NAME=VALUE, as os.Environ returns it
	Flags   map[string][]string // values of those that were given, by name
	Command []string            // the program and its arguments that were given with the flags
}

// Path is the file that the flags or the environment name, or "".
func (in Input) Path() string {
	if values := in.Flags[keyFile]; len(values) > 0 {
		return values[0]
	}
	for _, kv := range in.Environ {
		if path, ok := strings.CutPrefix(kv, envPrefix+"FILE="); ok {
			return path
		}
	}
	return ""
}

// Result is settings, and where they were said.
type Result struct {
	Settings
	File    string // that was read, or ""
	service scope
	groups  []scope
}

// DefaultListen is served where there is no program that would not expect it.
const DefaultListen = "http=tcp://127.0.0.1:8080"

// Parse makes settings, with all defaults filled in, and validates them. An error is Errors:
// all of a kind at once.
func Parse(in Input) (*Result, error) {
	r := &Result{File: in.File, service: scope{said: map[string]said{}}}
	errs := r.readFile(in)
	errs = append(errs, r.readEnviron(in.Environ)...)
	for _, k := range Keys {
		if values, ok := in.Flags[k.Name]; ok {
			r.override(k, said{values, place{name: "--" + k.Name}})
		}
	}
	if len(in.Command) > 0 {
		r.service.said[keyCommand] = said{values: in.Command}
	}
	errs = append(errs, r.fill(in)...)
	if len(errs) > 0 {
		return nil, errs.sorted()
	}
	if err := r.Validate(); err != nil {
		return nil, r.Explain(err)
	}
	return r, nil
}

// scope is what was said about the service, or about one group.
type scope struct {
	group string
	at    place
	said  map[string]said // by the key's name
}

type said struct {
	values []string // as flags have them
	at     place
}

// override is what comes from outside of the file. It goes before what a group says, too,
// but for what an agent is not asked about.
func (r *Result) override(k *Key, s said) {
	all := []scope{r.service}
	for _, g := range r.groups {
		if _, ok := g.said[k.Name]; ok && !(k.noAgent && g.agent()) {
			all = append(all, g)
		}
	}
	for _, sc := range all {
		was := sc.said[k.Name]
		switch {
		case k.kind().merges:
			sc.said[k.Name] = said{slices.Concat(was.values, s.values), s.at}
		case sc.group == "":
			sc.said[k.Name] = s
		default:
			delete(sc.said, k.Name)
		}
	}
}

func (s scope) agent() bool { return slices.Equal(s.said[keyAgent].values, []string{"true"}) }

func (s scope) has(key string) bool { _, ok := s.said[key]; return ok }

// fill makes the settings of what was said.
func (r *Result) fill(in Input) (errs Errors) {
	r.Source = in.Text
	for _, k := range Keys {
		if k.service == nil {
			continue
		}
		s, ok := r.service.said[k.Name]
		if !ok && k.Default != "" {
			s.values = []string{k.Default}
		}
		if s.values != nil {
			errs = append(errs, k.set(k.service(&r.Settings), s, false)...)
		}
	}
	r.Dir = below(in.base(r.service), r.Dir)
	r.implyGroup()
	for _, sc := range r.groups {
		g, gerrs := r.group(sc)
		if r.Dir == "" {
			g.Dir = below(in.base(sc), g.Dir)
		}
		errs = append(errs, gerrs...)
		r.Groups = append(r.Groups, g)
	}
	errs = append(errs, r.aboutNoProgram()...)
	r.Program.Output = r.output()
	if !r.service.has("listen") && !r.HasProgram() {
		r.Listen = []string{DefaultListen}
	}
	if r.Name == "" {
		r.Name = "handover"
		if len(r.Command) > 0 {
			r.Name = filepath.Base(r.Command[0])
		}
	}
	return errs
}

func (s *Settings) output() workerset.Output {
	switch {
	case s.RawOutput:
		return workerset.OutputRaw
	case s.Log == "json":
		return workerset.OutputJSON
	}
	return workerset.OutputPrefixed
}

// implyGroup makes a group of the one that there is where there are no others, for what only
// a group can have.
func (r *Result) implyGroup() {
	if len(r.groups) > 0 {
		return
	}
	for _, k := range Keys {
		if k.service == nil && r.service.has(k.Name) && k.group != nil {
			r.groups = []scope{{group: "web", said: map[string]said{}}}
			return
		}
	}
}

// group is what was said about one, with what it takes from the service where a
// handover.Config would not give it.
func (r *Result) group(sc scope) (g handover.Group, errs Errors) {
	g.Name = sc.group
	program := slices.ContainsFunc(Keys, func(k *Key) bool { return k.program && sc.has(k.Name) })
	if program || sc.has(keyCommand) {
		g.Command, g.Program = r.Command, r.Program
		g.Program.Limits = maps.Clone(g.Program.Limits)
	}
	for _, k := range Keys {
		if k.group == nil {
			continue
		}
		s, ok := sc.said[k.Name]
		if !ok && k.service == nil {
			s, ok = r.service.said[k.Name]
		}
		if ok && k.program && k.kind().merges { // of an environment, the Config adds it
			s.values = slices.Concat(r.service.said[k.Name].values, s.values)
		}
		if ok {
			errs = append(errs, k.set(k.group(&g), s, true)...)
		}
	}
	return g, errs
}

// HasProgram reports whether some workers execute one.
func (s *Settings) HasProgram() bool {
	return len(s.Command) > 0 || slices.ContainsFunc(s.Groups, func(g handover.Group) bool { return len(g.Command) > 0 })
}

// aboutNoProgram is what was said about programs where there are none.
func (r *Result) aboutNoProgram() (errs Errors) {
	without := func(sc scope, why string) {
		for _, k := range Keys {
			if s, ok := sc.said[k.Name]; ok && k.program {
				errs = append(errs, Error{s.at, "", " is about a program, and " + why})
			}
		}
	}
	if !r.HasProgram() {
		without(r.service, "none is given: handover run [flags] -- program args…, or the key command")
	}
	for i, sc := range r.groups {
		if len(r.Groups[i].Command) == 0 {
			without(sc, "this group has none: give it a command")
		}
	}
	return errs
}

// base is what a directory is relative to that a scope has said.
func (in Input) base(sc scope) string {
	if sc.said[keyDirectory].at.line > 0 {
		return in.Dir
	}
	return in.Here
}

// below is a path that is relative to dir.
func below(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
