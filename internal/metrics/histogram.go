package metrics

import (
	"math"
	"slices"
	"time"
)

// histogram counts durations. Its bounds travel with it, since the next parent may have
// others.
type histogram struct {
	Bounds []float64 `json:"bounds,omitempty"` // seconds, ascending; the last bucket has none
	Counts []uint64  `json:"counts,omitempty"` // one more than bounds
	Sum    float64   `json:"sum,omitempty"`    // seconds
}

// Bounds in seconds: a worker is there within milliseconds or within a minute, and a
// drain may take as long as its clients like.
var (
	startBounds   = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
	drainBounds   = []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 300}
	upgradeBounds = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
)

func newHistogram(bounds []float64) histogram {
	return histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
}

// observe counts one. A clock that was set back meanwhile makes it 0.
func (h *histogram) observe(d time.Duration) {
	s := max(0, d.Seconds())
	h.Counts[h.bucket(s)]++
	h.Sum += s
}

// bucket is the first whose bound is not below v.
func (h *histogram) bucket(v float64) int {
	i, _ := slices.BinarySearch(h.Bounds, v)
	return i
}

// add takes another one's observations in: those of one of its buckets go where its bound
// does. One that makes no sense is left out.
func (h *histogram) add(o histogram) {
	if len(o.Counts) != len(o.Bounds)+1 || !slices.IsSorted(o.Bounds) || !(o.Sum >= 0) || math.IsInf(o.Sum, 0) {
		return
	}
	for i, n := range o.Counts {
		at := len(h.Bounds)
		if i < len(o.Bounds) {
			at = h.bucket(o.Bounds[i])
		}
		h.Counts[at] += n
	}
	h.Sum += o.Sum
}

// cumulative is what Prometheus wants: how many there are up to each bound, and in all.
func (h *histogram) cumulative() (buckets map[float64]uint64, count uint64) {
	buckets = make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		count += h.Counts[i]
		buckets[bound] = count
	}
	return buckets, count + h.Counts[len(h.Bounds)]
}
