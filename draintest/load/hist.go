package load

import (
	"math"
	"math/bits"
	"time"
)

// A histogram counts latencies in buckets of a microsecond up to 32 µs and of at
// most 1/16 of their value from there on, to 71 minutes, in 2 KB.
type histogram struct {
	n   uint64
	max time.Duration
	b   [29 * 16]uint32
}

func (h *histogram) add(d time.Duration) {
	us := min(uint64(max(d, 0)/time.Microsecond), math.MaxUint32)
	shift := max(bits.Len64(us)-5, 0)
	h.b[shift*16+int(us>>shift)]++
	h.n++
	h.max = max(h.max, d)
}

// quantile returns the upper end of the bucket in which the q-th part of what was
// counted lies, and never more than the greatest value.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := uint64(math.Ceil(q*float64(h.n))), uint64(0)
	for i, n := range h.b {
		if seen += uint64(n); n > 0 && seen >= rank {
			shift := max(i/16-1, 0)
			top := time.Duration(i-shift*16+1) << shift
			return min(top*time.Microsecond, h.max)
		}
	}
	return h.max
}

// Latency is the distribution of the time from when a request should have been
// sent to the end of its answer, over good answers only. The quantiles are exact
// to 1/16 of their value.
type Latency struct {
	P50, P90, P99, P999, Max time.Duration
}

func (h *histogram) latency() Latency {
	return Latency{h.quantile(.5), h.quantile(.9), h.quantile(.99), h.quantile(.999), h.max}
}
