package faulttest_test

import (
	"github.com/handover-go/handover/draintest/procs"
)

var rows = []row{
	{
		name: "descriptors", fault: "descriptor limit reached, parent", fails: true,
		begin: func(s *service) func() { return s.descriptors(2) },
		says:  []saying{{byUpgrade, "nothing has changed: …too many open files"}, {byStatus, "not started: …too many open files"}},
	},
}

// descriptors leaves the parent so many numbers for new ones.
func (s *service) descriptors(free int) (end func()) {
	s.t.Helper()
	pid := s.parent()
	fds, err := procs.FDs(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	limit := 0
	for ; free > 0; limit++ {
		if _, used := fds[limit]; !used {
			free--
		}
	}
	s.prlimit(pid, "nofile", uint64(limit))
	return func() { s.prlimit(pid, "nofile", 1024) }
}
