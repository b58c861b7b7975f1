package lifecycle

import (
	"cmp"
	"slices"
	"time"
)

// Use is how much a worker has had of what can be limited.
type Use struct {
	Age      time.Duration
	Requests int
	Memory   int64 // bytes
}

// Limits is how much of each it may have before it is replaced, well as it is. 0 is no
// limit.
type Limits Use

// Limit is one of them.
type Limit uint8

const (
	NoLimit Limit = iota
	AgeLimit
	RequestLimit
	MemoryLimit
)

// Draw makes one worker's limits of its group's. u, from 0 to below 1, is its lot:
// workers that began together and do the same get to them one after the other, by up to
// the fraction jitter earlier. Of memory there is as much as there is, and no two workers
// grow alike, so that limit stays as it is.
func (l Limits) Draw(jitter, u float64) Limits {
	part := 1 - max(jitter, 0)*u
	if l.Age > 0 {
		l.Age = max(1, time.Duration(float64(l.Age)*part))
	}
	if l.Requests > 0 {
		l.Requests = max(1, int(float64(l.Requests)*part))
	}
	return l
}

// Wear is which part of its limits a worker has used up, 1 being all of it, and of which
// of them it is the largest part.
func (l Limits) Wear(u Use) (wear float64, of Limit) {
	for _, x := range []struct {
		limit     Limit
		used, may float64
	}{
		{AgeLimit, float64(u.Age), float64(l.Age)},
		{RequestLimit, float64(u.Requests), float64(l.Requests)},
		{MemoryLimit, float64(u.Memory), float64(l.Memory)},
	} {
		if x.may > 0 && x.used/x.may > wear {
			wear, of = x.used/x.may, x.limit
		}
	}
	return wear, of
}

// Recycle is the workers, by ID, that have reached a limit and whose turn it is to be
// replaced. They become Worn, and Plan does the rest. Ask when its steps, and those of
// Due, have been carried out.
//
// Nothing is less urgent: it is nobody's turn while the group is rolled or its roll has
// stopped, while a worker fails or is degraded, or while a slot waits. No more than Surge
// slots are without a worker that stays, or about to get another, at a time. Who is
// furthest past its limits goes first.
func Recycle(workers []Worker, want Want) []int {
	var (
		worn     []Worker
		served   = map[int]bool{}
		arriving = map[int]bool{}
	)
	for _, w := range workers {
		switch {
		case w.State == Condemned, w.State == Degraded, w.Stale && w.State < Draining:
			return nil
		case w.State.Arrives():
			arriving[w.Slot] = true
		case w.State == Serving && !w.Worn && w.Slot <= want.Count:
			served[w.Slot] = true
			if w.Wear >= 1 {
				worn = append(worn, w)
			}
		}
	}
	free := max(want.Surge, 1)
	for slot := 1; slot <= want.Count; slot++ {
		if want.Halted || want.waits(slot) {
			return nil
		}
		if !served[slot] || arriving[slot] {
			free--
		}
	}
	slices.SortFunc(worn, func(a, b Worker) int {
		return cmp.Or(cmp.Compare(b.Wear, a.Wear), cmp.Compare(a.ID, b.ID))
	})
	var ids []int
	for _, w := range worn[:max(0, min(free, len(worn)))] {
		ids = append(ids, w.ID)
	}
	return ids
}
