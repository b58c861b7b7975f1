package workerset

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Errors about the worker that somebody names.
var (
	// ErrNoWorker: nobody is of that name. The error says who there is.
	ErrNoWorker = errors.New("workerset: no such worker")
	// ErrAmbiguous: more than one is. The error says which.
	ErrAmbiguous = errors.New("workerset: more than one worker")
)

// Which names a worker: by Group and Slot, or by its Pid alone. An ID is no name: it is
// unique in its group and generation only.
type Which struct {
	Group string
	Slot  int // from 1
	Pid   int
}

// ParseWhich reads GROUP/SLOT, such as web/1, or a pid. It does not know whether there
// is such a worker.
func ParseWhich(s string) (Which, error) {
	group, number, place := strings.Cut(s, "/")
	if !place {
		group, number = "", s
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || place && group == "" || strconv.Itoa(n) != number {
		return Which{}, fmt.Errorf("worker %q: write GROUP/SLOT, such as web/1, or its pid", s)
	}
	if place {
		return Which{Group: group, Slot: n}, nil
	}
	return Which{Pid: n}, nil
}

func (w Which) String() string {
	if w.Pid != 0 {
		return fmt.Sprintf("pid %d", w.Pid)
	}
	return fmt.Sprintf("%s/%d", w.Group, w.Slot)
}

func (w Which) matches(x Worker) bool {
	if w.Pid != 0 {
		return x.Pid == w.Pid
	}
	return x.Group == w.Group && x.Slot == w.Slot
}

// goes reports whether a worker was told to go, or goes by itself.
func (w Worker) goes() bool {
	switch w.State {
	case "draining", "terminating", "killing", "exited":
		return true
	}
	return false
}

// find is the index of the worker that is meant. Whoever replaces those who serve means
// none of those who go already, where there are others.
func (w Which) find(workers []Worker, replaces bool) (int, error) {
	var all, stay []int
	for i, x := range workers {
		if !w.matches(x) || x.State == "exited" {
			continue
		}
		all = append(all, i)
		if !x.goes() {
			stay = append(stay, i)
		}
	}
	if replaces && len(stay) > 0 {
		all = stay
	}
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return 0, fmt.Errorf("%w: %v%s; there %s", ErrNoWorker, w, w.hint(workers), roster(workers))
	}
	var list []string
	for _, i := range all {
		x := workers[i]
		list = append(list, fmt.Sprintf("pid %d of generation %d is %s", x.Pid, x.Generation, x.State))
	}
	return 0, fmt.Errorf("%w: %v: %s: say which by its pid", ErrAmbiguous, w, strings.Join(list, ", "))
}

// hint is for whoever has taken an ID for a pid.
func (w Which) hint(workers []Worker) string {
	i := slices.IndexFunc(workers, func(x Worker) bool { return w.Pid != 0 && x.ID == w.Pid })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf(" (an ID is no name: that of %s/%d is %d, its pid %d)", workers[i].Group, workers[i].Slot, w.Pid, workers[i].Pid)
}

// roster says who there is.
func roster(workers []Worker) string {
	var list []string
	workers = slices.SortedFunc(slices.Values(workers), func(a, b Worker) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Pid, b.Pid))
	})
	for _, x := range workers {
		if x.State != "exited" {
			list = append(list, fmt.Sprintf("%s/%d (pid %d)", x.Group, x.Slot, x.Pid))
		}
	}
	switch len(list) {
	case 0:
		return "is nobody"
	case 1:
		return "is " + list[0]
	}
	return "are " + strings.Join(list, ", ")
}
