package draintest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/handover-go/handover/draintest/procs"
)

// step is one look: who is there, as PID, parent, start and state.
type step []procs.Process

func p(pid, ppid, start int, state byte) procs.Process {
	return procs.Process{PID: pid, PPID: ppid, Start: uint64(start), State: state}
}

func TestTree(t *testing.T) {
	t.Parallel()
	const self = 2
	for name, tc := range map[string]struct {
		steps   []step
		root    []int // at each step; the last one goes on
		belongs []int
		alive   []int
		ended   []int
		zombies []int
		main    int
	}{
		"children and theirs": {
			steps: []step{{p(10, self, 100, 'S'), p(11, 10, 101, 'S'), p(12, 11, 102, 'R'), p(13, self, 90, 'S'), p(1, 0, 0, 'S')}},
			root:  []int{10}, alive: []int{10, 11, 12}, main: 10,
		},
		"a child with a smaller pid, of the same tick": {
			steps: []step{{p(5, 10, 100, 'S'), p(10, self, 100, 'S')}},
			root:  []int{10}, alive: []int{5, 10}, main: 10,
		},
		"an orphan that was known": {
			steps: []step{{p(10, self, 100, 'S'), p(11, 10, 101, 'S')}, {p(11, self, 101, 'S')}},
			root:  []int{10, 0}, alive: []int{11}, ended: []int{10}, main: 11,
		},
		"an orphan that has the mark": {
			steps: []step{{p(10, self, 100, 'S')}, {p(10, self, 100, 'S'), p(12, self, 103, 'S'), p(13, 1, 104, 'S'), p(14, 3, 105, 'S')}},
			root:  []int{10}, belongs: []int{12, 14}, alive: []int{10, 12}, main: 10,
		},
		"a pid that is used again": {
			steps: []step{{p(10, self, 100, 'S'), p(11, 10, 101, 'S')}, {p(10, self, 100, 'S'), p(11, self, 200, 'S')}},
			root:  []int{10}, alive: []int{10}, ended: []int{11}, main: 10,
		},
		"a child of a pid that is used again": {
			steps: []step{{p(10, self, 100, 'S'), p(11, 10, 101, 'S')}, {p(10, self, 100, 'S'), p(11, 1, 200, 'S'), p(12, 11, 201, 'S')}},
			root:  []int{10}, alive: []int{10}, ended: []int{11}, main: 10,
		},
		"a zombie, that is asked in the end": {
			steps: []step{{p(10, self, 100, 'S'), p(11, 10, 101, 'S')}, {p(10, self, 100, 'S'), p(11, 10, 101, 'Z')}, {p(10, self, 100, 'S')}},
			root:  []int{10}, alive: []int{10}, ended: []int{11}, main: 10,
		},
		"a zombie that stays": {
			steps: []step{{p(10, self, 100, 'S'), p(11, 10, 101, 'Z')}},
			root:  []int{10}, alive: []int{10}, ended: []int{11}, zombies: []int{11}, main: 10,
		},
		"a root that changes": {
			steps: []step{{p(10, 1, 100, 'S')}, {p(10, 1, 100, 'S'), p(20, 1, 101, 'S'), p(21, 20, 102, 'S')}, {p(20, 1, 101, 'S'), p(21, 20, 102, 'S')}},
			root:  []int{10, 20}, alive: []int{20, 21}, ended: []int{10}, main: 20,
		},
		"none": {steps: []step{{p(1, 0, 0, 'S')}, {}}, root: []int{0}},
	} {
		tree := newTree(func(pid int) bool { return slices.Contains(tc.belongs, pid) }, self, 1)
		for i, s := range tc.steps {
			tree.look(at(i), s, tc.root[min(i, len(tc.root)-1)])
		}
		var alive, ended []int
		for _, l := range tree.lives {
			if l.Ended.IsZero() {
				alive = append(alive, l.PID)
			} else {
				ended = append(ended, l.PID)
			}
		}
		slices.Sort(alive)
		main := 0
		if l := tree.main(); l != nil {
			main = l.PID
		}
		var zombies []int
		for _, l := range tree.zombies() {
			zombies = append(zombies, l.PID)
		}
		got, want := fmt.Sprint(alive, ended, zombies, main), fmt.Sprint(tc.alive, tc.ended, tc.zombies, tc.main)
		if got != want {
			t.Errorf("%s: alive, ended, zombies, main %s, want %s", name, got, want)
		}
	}
}
