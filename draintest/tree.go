package draintest

import (
	"cmp"
	"slices"
	"time"

	"github.com/handover-go/handover/draintest/procs"
)

// Life is one process of the server's.
type Life struct {
	PID   int
	Args  []string
	First time.Time // when it was first seen
	Ended time.Time // when it was first missed or seen as a zombie; zero: it lives

	ppid   int
	start  uint64 // see procs.Process
	zombie bool
}

// tree is a server's processes: a root, whoever descends from it, and those of its
// children that outlive their parents. One goroutine has it.
type tree struct {
	lives []*Life
	known map[procID]*Life
	// belongs is asked of a process whose parent tells nothing, since it is this process or
	// one that adopts orphans; once for each.
	belongs   func(pid int) bool
	adopters  []int
	strangers map[procID]bool
}

type procID struct {
	pid   int
	start uint64
}

func newTree(belongs func(pid int) bool, adopters ...int) *tree {
	return &tree{known: map[procID]*Life{}, strangers: map[procID]bool{}, belongs: belongs, adopters: adopters}
}

// look notes who is there. A root of 0 is none.
func (t *tree) look(now time.Time, all []procs.Process, root int) {
	// Parents before their children, who are younger.
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b procs.Process) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
	})
	there := map[procID]bool{}
	byPID := map[int]*Life{}
	for again := true; again; { // of the same tick a child may come first
		again = false
		for _, p := range all {
			id := procID{p.PID, p.Start}
			if there[id] {
				continue
			}
			l := t.known[id]
			if l == nil && t.isNew(p, root, byPID) {
				l = &Life{PID: p.PID, First: now, start: p.Start}
				t.known[id] = l
				t.lives = append(t.lives, l)
			}
			if l != nil {
				there[id], again = true, true
				byPID[p.PID] = l
				l.ppid, l.zombie = p.PPID, p.State == 'Z'
			}
		}
	}
	for _, l := range t.lives {
		here := there[procID{l.PID, l.start}]
		if l.Ended.IsZero() && (!here || l.zombie) {
			l.Ended = now
		}
		l.zombie = l.zombie && here
	}
}

// isNew tells whether a process that is not known is the server's.
func (t *tree) isNew(p procs.Process, root int, byPID map[int]*Life) bool {
	id := procID{p.PID, p.Start}
	switch {
	case p.PID == root && root > 0, byPID[p.PPID] != nil:
		return true
	case t.strangers[id] || !slices.Contains(t.adopters, p.PPID):
		return false
	case t.belongs(p.PID):
		return true
	}
	t.strangers[id] = true
	return false
}

// alive are those that live.
func (t *tree) alive() (list []*Life) {
	for _, l := range t.lives {
		if l.Ended.IsZero() {
			list = append(list, l)
		}
	}
	return list
}

// zombies are those that have ended, and nobody has asked how.
func (t *tree) zombies() (list []*Life) {
	for _, l := range t.lives {
		if l.zombie {
			list = append(list, l)
		}
	}
	return list
}

// since are those that live and came after a time.
func (t *tree) since(when time.Time) (list []*Life) {
	for _, l := range t.alive() {
		if l.First.After(when) {
			list = append(list, l)
		}
	}
	return list
}

// endedSince tells whether one that was there before a time has ended after it.
func (t *tree) endedSince(when time.Time) bool {
	for _, l := range t.lives {
		if l.First.Before(when) && l.Ended.After(when) {
			return true
		}
	}
	return false
}

// main is the process that the others descend from: the oldest whose parent is not among
// those that live, or nil.
func (t *tree) main() *Life {
	pids := map[int]bool{}
	for _, l := range t.alive() {
		pids[l.PID] = true
	}
	for _, l := range t.alive() {
		if !pids[l.ppid] {
			return l
		}
	}
	return nil
}
