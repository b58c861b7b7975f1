//go:build unix

package configfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/handover-go/handover/internal/listen"
)

// readFile takes what the file says.
func (r *Result) readFile(in Input) (errs Errors) {
	if in.File == "" {
		return nil
	}
	doc := document{file: in.File}
	if err := toml.Unmarshal(in.Text, &doc.values); err != nil {
		at := place{file: in.File, line: 1}
		var de *toml.DecodeError
		if errors.As(err, &de) {
			at.line, _ = de.Position()
		}
		return Errors{{at: at, why: ": " + strings.TrimPrefix(err.Error(), "toml: ")}}
	}
	doc.locate(in.Text)
	r.service, errs = doc.scope("", doc.values, "service")
	groups, ok := doc.values[keyGroups].(map[string]any)
	if v, there := doc.values[keyGroups]; there && !ok {
		return append(errs, doc.wrong(path{keyGroups}, "groups are tables, [groups.NAME] for each, not "+describe(v)))
	}
	for _, name := range doc.inOrder(path{keyGroups}, groups) {
		at := path{keyGroups, name}
		if err := listen.CheckName(name); err != nil {
			errs = append(errs, doc.wrong(at, "group "+err.Error()))
		}
		table, ok := groups[name].(map[string]any)
		if !ok {
			errs = append(errs, doc.wrong(at, "a group is a table, [groups."+name+"], not "+describe(groups[name])))
			continue
		}
		g, gerrs := doc.scope(name, table, "group")
		g.at = doc.at(at)
		r.groups, errs = append(r.groups, g), append(errs, gerrs...)
	}
	return errs
}

// path leads to a key.
type path []string

func (p path) String() string { return strings.Join(p, ".") }

// id is for maps: keys may contain dots.
func (p path) id() string { return strings.Join(p, "\x00") }

func (p path) to(name string) path { return append(p[:len(p):len(p)], name) }

// document is a file that was read: its values, and in which line what stands.
type document struct {
	file   string
	values map[string]any
	lines  map[string]int // by id of the path
	order  map[string]int // when it was first named
}

// locate finds out where what stands. The text is known to be right.
func (d *document) locate(text []byte) {
	d.lines, d.order = map[string]int{}, map[string]int{}
	var p unstable.Parser
	p.Reset(text)
	var table path
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.key(&p, nil, e)
		case unstable.KeyValue:
			d.value(&p, d.key(&p, table, e), e.Value())
		}
	}
}

// key notes the line of a key, and of what leads to it.
func (d *document) key(p *unstable.Parser, at path, node *unstable.Node) path {
	for it := node.Key(); it.Next(); {
		at = at.to(string(it.Node().Data))
		if _, known := d.lines[at.id()]; !known {
			d.lines[at.id()] = p.Shape(it.Node().Raw).Start.Line
			d.order[at.id()] = len(d.order)
		}
	}
	return at
}

// value looks into tables that stand in one line.
func (d *document) value(p *unstable.Parser, at path, node *unstable.Node) {
	if node.Kind != unstable.InlineTable {
		return
	}
	for it := node.Children(); it.Next(); {
		if n := it.Node(); n.Kind == unstable.KeyValue {
			d.value(p, d.key(p, at, n), n.Value())
		}
	}
}

func (d *document) at(p path) place { return place{d.file, d.lines[p.id()], p.String()} }

func (d *document) wrong(p path, why string) Error {
	at := d.at(p)
	at.name = ""
	return Error{at: at, why: ": " + why}
}

// inOrder is a table's keys as they stand in the file.
func (d *document) inOrder(p path, table map[string]any) []string {
	return slices.SortedFunc(maps.Keys(table), func(a, b string) int {
		return d.order[p.to(a).id()] - d.order[p.to(b).id()]
	})
}

// scope reads what a table says about the service, or about a group.
func (d *document) scope(group string, table map[string]any, of string) (s scope, errs Errors) {
	s = scope{group: group, said: map[string]said{}}
	var in path
	if group != "" {
		in = path{keyGroups, group}
	}
	for _, name := range d.inOrder(in, table) {
		at := in.to(name)
		k := keyNamed(name)
		switch {
		case name == keyGroups && group == "":
		case k == nil || k.flagOnly:
			errs = append(errs, d.wrong(at, fmt.Sprintf("unknown key %q%s", at.String(), meant(name, group != ""))))
		case group == "" && k.service == nil && !k.inherited:
			errs = append(errs, d.wrong(at, fmt.Sprintf("%s is about a group: it belongs below a [groups.NAME]", name)))
		case group != "" && k.group == nil:
			errs = append(errs, d.wrong(at, fmt.Sprintf("%s is about the whole service: it belongs before the first [groups.NAME]", name)))
		default:
			values, ok := k.in(group).accept(table[name])
			if !ok {
				errs = append(errs, Error{at: d.at(at), why: fmt.Sprintf(": %s is needed, not %s", k.in(group).wants, describe(table[name]))})
				continue
			}
			s.said[name] = said{values, d.at(at)}
		}
	}
	return s, errs
}

// describe says what a value is.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("the string %q", v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return fmt.Sprintf("%v", v)
	case []any:
		return "this array"
	case map[string]any:
		return "this table"
	}
	return fmt.Sprintf("%v", v)
}
