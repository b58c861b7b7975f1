package anchor

import (
	"maps"
	"slices"
)

// maxStatuses is how many of those who have ended the anchor remembers.
const maxStatuses = 1024

// statuses are how those children of the anchor have ended that it has reaped, as wait4(2)
// tells it, by pid: the workers of a parent that was replaced are nobody else's children,
// and the parent that has adopted them asks.
type statuses struct {
	m     map[int]uint32
	order []int
}

// resume goes on with those that the image before this one remembers, the oldest of which are not
// known.
func (s *statuses) resume(m map[int]uint32) {
	for _, pid := range slices.Sorted(maps.Keys(m)) {
		s.put(pid, m[pid])
	}
}

func (s *statuses) put(pid int, status uint32) {
	if s.m == nil {
		s.m = map[int]uint32{}
	}
	if _, ok := s.m[pid]; !ok {
		s.order = append(s.order, pid)
	}
	s.m[pid] = status
	for len(s.m) > maxStatuses && len(s.order) > 0 {
		delete(s.m, s.order[0])
		s.order = s.order[1:]
	}
}
