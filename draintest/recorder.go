package draintest

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// bucket is the time of one point of the timeline.
const bucket = 100 * time.Millisecond

// sampled is how many latencies of a point are kept for its quantiles.
const sampled = 256

// Point is what became of one kind's requests in a tenth of a second, by when they should
// have been sent.
type Point struct {
	At            time.Duration // from the load's beginning
	Kind          load.Kind
	OK, Failed    int
	ClosedIdle    int
	P50, P99, Max time.Duration // of the good answers

	latencies []time.Duration
}

// recorder notes what clients see.
type recorder struct {
	began time.Time // the load; set before it does

	mu      sync.Mutex
	points  map[pointKey]*Point
	good    map[load.Kind]int
	workers map[string]time.Time // X-Worker: when it was first seen
	last    string
	hist    []int // good answers by bar, see barOf
	failed  int
	idle    int
}

type pointKey struct {
	n    int
	kind load.Kind
}

func newRecorder() *recorder {
	return &recorder{points: map[pointKey]*Point{}, good: map[load.Kind]int{}, workers: map[string]time.Time{}}
}

func (r *recorder) observe(q load.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := pointKey{max(0, int(q.Intended.Sub(r.began)/bucket)), q.Kind}
	p := r.points[key]
	if p == nil {
		p = &Point{At: time.Duration(key.n) * bucket, Kind: q.Kind}
		r.points[key] = p
	}
	if q.Worker != "" {
		if _, seen := r.workers[q.Worker]; !seen {
			r.workers[q.Worker] = q.Ended
		}
		r.last = q.Worker
	}
	switch {
	case q.Failure == nil:
		r.good[q.Kind]++
		latency := q.Ended.Sub(q.Intended)
		p.add(latency)
		bar := barOf(latency)
		for len(r.hist) <= bar {
			r.hist = append(r.hist, 0)
		}
		r.hist[bar]++
	case q.Failure.Class == load.ClosedIdle:
		r.idle++
		p.ClosedIdle++
	default:
		r.failed++
		p.Failed++
	}
}

// Bar is a part of a histogram of latencies.
type Bar struct {
	UpTo  time.Duration // more than the bar before
	Count int
}

// A bar of a histogram ends a quarter more than the one before it, from 100 µs on.
const (
	firstBar  = 100 * time.Microsecond
	barFactor = 1.25
)

func barOf(d time.Duration) int {
	if d <= firstBar {
		return 0
	}
	return int(math.Ceil(math.Log(float64(d)/float64(firstBar))/math.Log(barFactor) - 1e-9))
}

// histogram is that of all good answers, without the bars on the left that are empty.
func (r *recorder) histogram() (bars []Bar) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range r.hist {
		if n > 0 || bars != nil {
			bars = append(bars, Bar{time.Duration(float64(firstBar) * math.Pow(barFactor, float64(i))).Round(10 * time.Microsecond), n})
		}
	}
	return bars
}

// add counts a good answer. Of many, any is as likely to be kept.
func (p *Point) add(d time.Duration) {
	p.OK++
	p.Max = max(p.Max, d)
	if len(p.latencies) < sampled {
		p.latencies = append(p.latencies, d)
	} else if i := rand.IntN(p.OK); i < sampled {
		p.latencies[i] = d
	}
}

// answered are the good answers so far, by kind.
func (r *recorder) answered() map[load.Kind]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	good := map[load.Kind]int{}
	for k, n := range r.good {
		good[k] = n
	}
	return good
}

// firstSince is when the first answer came from a worker that was not seen before a time.
func (r *recorder) firstSince(when time.Time) (first time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.workers {
		if t.After(when) && (!ok || t.Before(first)) {
			first, ok = t, true
		}
	}
	return first, ok
}

func (r *recorder) counts() (good, failed, idle int, last string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.good {
		good += n
	}
	return good, r.failed, r.idle, r.last
}

// timeline is all of it, by time and kind.
func (r *recorder) timeline() []Point {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Point
	for _, p := range r.points {
		slices.Sort(p.latencies)
		if n := len(p.latencies); n > 0 {
			p.P50, p.P99 = p.latencies[(n-1)/2], p.latencies[(n*99+99)/100-1]
		}
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b Point) int {
		if a.At != b.At {
			return int(a.At - b.At)
		}
		return int(a.Kind - b.Kind)
	})
	return all
}
