package control

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/handover-go/handover/internal/logs"
)

// Selector says which workers are meant. The zero value means all.
type Selector struct {
	pid   int
	group string
	n     []int // slot, id, generation, as far as they are said
}

// ParseSelector reads GROUP, GROUP/SLOT, GROUP/SLOT/ID or GROUP/SLOT/ID/GENERATION, as
// in a worker's HANDOVER_WORKER; or its pid. "" is all.
func ParseSelector(s string) (Selector, error) {
	bad := func() (Selector, error) {
		return Selector{}, fmt.Errorf("worker %q: say GROUP, GROUP/SLOT, GROUP/SLOT/ID, GROUP/SLOT/ID/GENERATION, or a pid", s)
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 {
			return bad()
		}
		return Selector{pid: n}, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) > 4 || parts[0] == "" && s != "" {
		return bad()
	}
	sel := Selector{group: parts[0]}
	for _, p := range parts[1:] {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 {
			return bad()
		}
		sel.n = append(sel.n, n)
	}
	return sel, nil
}

func (s Selector) all() bool { return s.pid == 0 && s.group == "" }

// Matches reports whether a worker is meant.
func (s Selector) Matches(w logs.Worker) bool {
	if s.pid > 0 {
		return s.pid == w.Pid
	}
	if s.group != "" && s.group != w.Group {
		return false
	}
	for i, n := range s.n {
		if n != [...]int{w.Slot, w.ID, w.Generation}[i] {
			return false
		}
	}
	return true
}
