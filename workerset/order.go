package workerset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/handover-go/handover/internal/lifecycle"
)

// This file is about groups that go after others: they start when those serve, and
// stop before them.

// checkOrder says which After names nothing, or leads back to where it began.
func checkOrder(groups []Group) error {
	after := map[string][]string{}
	for _, g := range groups {
		after[g.Name] = g.After
	}
	for _, g := range groups {
		for i, name := range g.After {
			if _, ok := after[name]; !ok {
				return fmt.Errorf("group %q: it goes after %q, and there is no such group", g.Name, name)
			}
			if slices.Contains(g.After[:i], name) {
				return fmt.Errorf("group %q: it goes after %q twice", g.Name, name)
			}
		}
	}
	for _, g := range groups {
		if circle := circleFrom(g.Name, nil, after); circle != nil {
			return fmt.Errorf("group %q: it can't start, since each waits for the next: %s", circle[0], strings.Join(circle, ", "))
		}
	}
	return nil
}

// circleFrom is a way from a group back to one that is on the way already.
func circleFrom(name string, way []string, after map[string][]string) []string {
	if i := slices.Index(way, name); i >= 0 {
		return append(way[i:], name)
	}
	way = append(way[:len(way):len(way)], name)
	for _, next := range after[name] {
		if circle := circleFrom(next, way, after); circle != nil {
			return circle
		}
	}
	return nil
}

// waitsFor is the groups that a group waits for, before it starts its first worker:
// those of After of which no worker could serve yet. Once there were such, it waits no
// more: that one of them is down later keeps nobody from being replaced.
func (s *Set) waitsFor(g *group) (names []string) {
	if g.open {
		return nil
	}
	for _, name := range g.After {
		if i := slices.IndexFunc(s.groups, func(o *group) bool { return o.Name == name }); i >= 0 && !s.groups[i].up() {
			names = append(names, name)
		}
	}
	g.open = len(names) == 0
	return names
}

// up reports whether one of a group's workers could serve.
func (g *group) up() bool {
	return slices.ContainsFunc(g.members, func(in *incarnation) bool { return in.state == lifecycle.Standby || in.state.Serves() })
}

// outlives reports whether there are workers left of a group that goes after g,
// directly or by others.
func (s *Set) outlives(g *group) bool {
	return slices.ContainsFunc(s.groups, func(o *group) bool { return len(o.members) > 0 && s.follows(o, g) })
}

func (s *Set) follows(o, g *group) bool {
	return slices.ContainsFunc(s.groups, func(p *group) bool {
		return slices.Contains(o.After, p.Name) && (p == g || s.follows(p, g))
	})
}

// endNext tells the next groups to end, those that no other goes after any more; when
// all are to be killed, all at once.
func (s *Set) endNext() {
	if !s.stopping || s.yielded {
		return
	}
	for _, g := range s.groups {
		if g.ended || s.ending == lifecycle.Stop && s.outlives(g) {
			continue
		}
		g.ended = true
		for _, in := range slices.Clone(g.members) {
			in.dismissed = true
			s.letGo(in)
			s.apply(in, s.ending)
		}
	}
}
