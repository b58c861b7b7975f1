package workerset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
)

// User is who a process runs as.
type User = launch.User

// Slot stands for a worker's slot in the names of a group's sockets.
const Slot = "{slot}"

// socketsOf is the names of the sockets that the worker in a slot gets.
func (g *Group) socketsOf(slot int) []string { return Expand(g.Sockets, slot) }

// Expand puts a slot in for Slot in names.
func Expand(names []string, slot int) []string {
	names = slices.Clone(names)
	for i, name := range names {
		names[i] = strings.ReplaceAll(name, Slot, strconv.Itoa(slot))
	}
	return names
}

// most is how many workers a group can have at most, since each needs sockets of its
// own; -1: as many as one likes.
func (g *Group) most(sockets map[string]int) int {
	if !slices.ContainsFunc(g.Sockets, func(name string) bool { return strings.Contains(name, Slot) }) {
		return -1
	}
	for n := 1; ; n++ {
		for _, name := range g.socketsOf(n) {
			if _, ok := sockets[name]; !ok {
				return n - 1
			}
		}
	}
}

// checkSockets says which socket of a group is not there.
func (g *Group) checkSockets(sockets map[string]int) error {
	if g.Sockets == nil {
		g.Sockets = slices.Sorted(maps.Keys(sockets))
	}
	for slot := 1; slot <= g.Count; slot++ {
		names := g.socketsOf(slot)
		for i, name := range names {
			if _, ok := sockets[name]; !ok && name != g.Sockets[i] {
				return fmt.Errorf("there is no socket %q for slot %d", name, slot)
			} else if !ok {
				return fmt.Errorf("there is no socket %q", name)
			}
			if slices.Contains(names[:i], name) {
				return fmt.Errorf("socket %q is there twice", name)
			}
		}
		if g.most(sockets) < 0 {
			break // they are the same in every slot
		}
	}
	if g.Tickets < 0 {
		return fmt.Errorf("a file of session ticket keys at descriptor %d: 0 is none", g.Tickets)
	}
	for name := range g.Queues {
		if !slices.Contains(g.Sockets, name) {
			return fmt.Errorf("a queue for socket %q, which all of its workers would have to have", name)
		}
	}
	return nil
}

// checkUser says whom a group's workers can't run as.
func (g *Group) checkUser() error {
	switch {
	case g.User == nil:
		return nil
	case g.User.UID == ^uint32(0) || g.User.GID == ^uint32(0):
		return fmt.Errorf("user %d:%d: the largest number means nobody", g.User.UID, g.User.GID)
	case int(g.User.UID) == os.Geteuid() && int(g.User.GID) == os.Getegid() && len(g.User.Groups) == 0:
		g.User = nil // whoever it is that runs this needs no right to become himself
		return nil
	case !launch.MayChangeUser():
		return fmt.Errorf("user %d:%d: only root may start workers as somebody else", g.User.UID, g.User.GID)
	}
	return nil
}

// ValidateGroups says which parts of groups can't work with sockets of these kinds, by
// name, in an error that wraps ErrConfig and a FieldError for each: kinds are "tcp", "udp",
// "unix", "unixgram" and "unixpacket". Nothing has to be open, and nothing is started.
func ValidateGroups(groups []Group, sockets map[string]string) error {
	c := Config{Groups: groups, Sockets: map[string]int{}}
	for name := range sockets {
		c.Sockets[name] = -1
	}
	err := c.groupsWithDefaults()
	if err == nil {
		err = c.checkUse(func(name string) string { return sockets[name] })
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// groupsWithDefaults validates the groups and fills them in.
func (c *Config) groupsWithDefaults() error {
	c.Groups = slices.Clone(c.Groups)
	var errs []error
	seen := map[string]bool{}
	for i := range c.Groups {
		g := &c.Groups[i]
		if err := g.withDefaults(*c); err != nil {
			errs = append(errs, err)
		} else if seen[g.Name] {
			errs = append(errs, fmt.Errorf("group %q is there twice", g.Name))
		}
		seen[g.Name] = true
	}
	return errors.Join(append(errs, checkOrder(c.Groups))...)
}

// Setup changes what a group is, for the workers that are started from then on, as
// Node's cluster.setupPrimary does: those that run stay as they were started, and
// Restart replaces them. Name says which group; Count is left to Scale, and After to
// the start. Queues and Tickets that are not given stay. What can't work is an error that wraps
// ErrConfig, and changes nothing.
func (s *Set) Setup(ctx context.Context, g Group) (err error) {
	derr := s.do(ctx, func() {
		i := slices.IndexFunc(s.cfg.Groups, func(o Group) bool { return o.Name == g.Name })
		switch {
		case s.stopping || s.yielded:
			err = ErrEnded
			return
		case i < 0:
			err = fmt.Errorf("%w: %q", ErrNoGroup, g.Name)
			return
		}
		now := s.groupNamed(g.Name)
		if g.Count, g.After = now.Count, now.After; g.Queues == nil {
			g.Queues = now.Queues
		}
		g.Tickets = cmp.Or(g.Tickets, now.Tickets)
		cfg := s.cfg
		cfg.Groups = slices.Clone(cfg.Groups)
		cfg.Groups[i] = g
		if cfg, err = cfg.withDefaults(); err != nil {
			return
		}
		s.cfg = cfg
		now.Group = cfg.Groups[i]
		now.budget = lifecycle.Budget{Burst: now.Burst, Per: now.Per, Full: now.budget.Full}
	})
	if derr != nil {
		return derr
	}
	return err
}

// due is the degraded workers whose turn it is to be replaced. Those of a group that
// keeps them have no turn.
func (s *Set) due(g *group) []int {
	if g.KeepFailed {
		return nil
	}
	return lifecycle.Due(g.view(), s.want(g))
}

// scale sets a group's count, if it has sockets for so many.
func (s *Set) scale(g *group, count int) error {
	if most := g.most(s.cfg.Sockets); most >= 0 && count > most {
		return fmt.Errorf("workerset: scale %s to %d: there are sockets of their own for %d workers", g.Name, count, most)
	}
	g.Count = count
	return nil
}
