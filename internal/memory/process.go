package memory

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Kind is a way to count.
type Kind int

const (
	// RSS is all pages that a process has in memory (resident set size). It takes the
	// kernel nothing to know, but what processes share counts for each of them.
	RSS Kind = iota
	// PSS is the same with what is shared divided among those who share it (proportional
	// set size). To know, the kernel walks through all of the process's pages, and
	// whatever of the process wants to change its mappings waits meanwhile.
	PSS
)

func (k Kind) String() string {
	if k == PSS {
		return "PSS"
	}
	return "RSS"
}

// depth is how far descendants are looked for. What is deeper is no part of a worker.
const depth = 16

// Of is how many bytes a process has, with all that descend from it: who has started a
// wrapper means what that one has started. It reads proc(5), which may take a while.
// Descendants that end meanwhile, or can't be asked, count nothing.
func Of(pid int, kind Kind) (int64, error) {
	n, err := of(pid, kind)
	if err != nil {
		return 0, err
	}
	for _, child := range children(pid, depth) {
		more, _ := of(child, kind)
		n += more
	}
	return n, nil
}

// of is how many bytes one process has.
func of(pid int, kind Kind) (int64, error) {
	if kind == PSS {
		return field(pid, "smaps_rollup", pss)
	}
	return field(pid, "statm", rss)
}

// field reads a number out of one of a process's files.
func field(pid int, name string, read func([]byte) (int64, error)) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := read(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

var errNotThere = errors.New("what is looked for is not there")

// rss reads proc_pid_statm(5).
func rss(b []byte) (int64, error) {
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, errNotThere
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// pss reads proc_pid_smaps(5).
func pss(b []byte) (int64, error) {
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errNotThere
}

// children are the processes that descend from one.
func children(pid, depth int) (pids []int) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, f := range bytes.Fields(b) {
			if child, err := strconv.Atoi(string(f)); err == nil && depth > 0 {
				pids = append(append(pids, child), children(child, depth-1)...)
			}
		}
	}
	return pids
}
