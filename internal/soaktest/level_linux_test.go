package soaktest_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/shop"
)

// level is what a service takes, by what it is.
type level map[string]int

// What may be more in the end than in the beginning: memory, whose use is not the same twice, and
// nothing else.
var tolerance = map[string]int{memoryOf("anchor"): 4 << 20, memoryOf("parent"): 8 << 20, inFiles: 4 << 20}

// inFiles is the memory in files without a name (memfd_create(2)), in bytes.
const inFiles = "bytes in memory files"

func memoryOf(role string) string { return "bytes of memory of the " + role }

// grown says what a service takes more of than it did.
func grown(before, after level) (more []string) {
	for _, what := range slices.Sorted(maps.Keys(after)) {
		if after[what] > before[what]+tolerance[what] {
			more = append(more, fmt.Sprintf("%s: %d, and then %d", what, before[what], after[what]))
		}
	}
	return more
}

// finds says how small a leak is that is found, if it happens n times.
func finds(n int) string {
	return fmt.Sprintf("a leak would be found of %d bytes in the parent, of %d in the anchor, of one descriptor, process or file, each time",
		tolerance[memoryOf("parent")]/n+1, tolerance[memoryOf("anchor")]/n+1)
}

// levelOver is the median of some levels, taken while something goes on: no single one counts.
func levelOver(t *testing.T, s *shop.Shop, step func()) level {
	t.Helper()
	const looks = 5
	all := map[string][]int{}
	for range looks {
		step()
		s.Settle(true)
		for what, n := range look(t, s) {
			all[what] = append(all[what], n)
		}
	}
	l := level{}
	for what, list := range all {
		slices.Sort(list)
		l[what] = list[len(list)/2]
	}
	return l
}

// look is what a service takes now. What it has for its clients does not count.
func look(t *testing.T, s *shop.Shop) level {
	t.Helper()
	standing, err := procs.Standing()
	if err != nil {
		t.Fatal(err)
	}
	l, seen := level{}, map[uint64]bool{}
	for _, p := range s.Processes() {
		l["processes"]++
		role, _, _ := strings.Cut(p.Role, "/")
		fds, err := procs.FDs(p.PID)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for fd, target := range fds {
			if !strings.HasPrefix(target, "socket:") || standing[target] {
				n++
			}
			if strings.HasPrefix(target, "/memfd:") {
				l[inFiles] += taken(p.PID, fd, seen)
			}
		}
		what := "descriptors of the " + role // of a role that several have, the most
		l[what] = max(l[what], n)
		if role == "anchor" || role == "parent" { // the others are in no parent's hands
			m, err := procs.Memory(p.PID)
			if err != nil {
				t.Fatal(err)
			}
			l[memoryOf(role)] = int(m)
		}
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	l["files"] = len(entries)
	return l
}

// taken is how many bytes there are in a file, unless that was seen before.
func taken(pid, fd int, seen map[uint64]bool) int {
	st, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil {
		return 0 // closed since
	}
	sys := st.Sys().(*syscall.Stat_t)
	if seen[sys.Ino] {
		return 0
	}
	seen[sys.Ino] = true
	return int(sys.Blocks) * 512
}

func TestGrown(t *testing.T) {
	before := level{"processes": 5, "files": 3, memoryOf("anchor"): 3 << 20, "descriptors of the parent": 40}
	after := func(what string, n int) level {
		l := maps.Clone(before)
		l[what] += n
		return l
	}
	for _, l := range []level{
		after("processes", 1), after("files", 1), after("descriptors of the parent", 1), after("descriptors of the worker web", 1),
		after(memoryOf("anchor"), tolerance[memoryOf("anchor")]+1),
	} {
		if len(grown(before, l)) != 1 {
			t.Errorf("%v is not more than %v", l, before)
		}
	}
	for _, l := range []level{before, after(memoryOf("anchor"), 1<<20), after("files", -1)} {
		if more := grown(before, l); len(more) > 0 {
			t.Error(more)
		}
	}
}

// TestLeak: what a service with a leak takes grows.
func TestLeak(t *testing.T) {
	s := start(t, envLeak+"=1")
	upgrade := func() { s.Upgrade() }
	before := levelOver(t, s, upgrade)
	after := levelOver(t, s, upgrade)
	more := strings.Join(grown(before, after), "; ")
	if !strings.Contains(more, "files: ") || !strings.Contains(more, "descriptors of the anchor: ") {
		t.Errorf("not found: %s", more)
	}
	s.Stop(true)
}
