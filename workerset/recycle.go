package workerset

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/memory"
	"github.com/handover-go/handover/internal/wire"
)

// DefaultJitter is that of Recycle.
const DefaultJitter = 0.1

const (
	// leastAge and leastMemory are what no limit is to be below: a worker would be past it
	// before it serves.
	leastAge    = time.Second
	leastMemory = 1 << 20
)

// Recycle says when a worker is replaced although nothing is wrong with it. The zero value
// is never.
//
// Its replacement serves before it drains, so that no fewer than Count accept. At most Surge
// slots have that done at a time, and it waits while the group is rolled or its roll has
// stopped, while workers fail, and while a slot waits. If the replacement can't start, the
// worker goes on, and that is tried again, later and later.
//
// To be recycled is no failure: it counts neither for Burst nor for MaxRestarts, nor does a
// replacement that can't start count for that one; and who waits for the set to be ready does
// not wait for it. In the Cause of a worker, an Event and a Death it is "recycle", with the
// limit that was reached as the Reason.
type Recycle struct {
	// MaxAge is how long a worker serves, counted from the start of its process. At least
	// 1 s; 0 is for ever.
	MaxAge time.Duration
	// MaxRequests is how many requests a worker serves: those of HTTP, of HTTP/2 each
	// stream, also on connections that have moved there; of a server that is no http.Server
	// the connections that it has accepted, and packets. Connections of that kind that have
	// moved there count where they were accepted: if they counted here, too, a worker with as
	// many would be replaced by one that has reached the limit as soon as it has them. It
	// says how many with its heartbeat, so that it may be more. A Program with a path does not
	// say it, and can't have this limit. 0 is any number.
	MaxRequests int
	// MaxMemory is how much memory a worker may have, in bytes, with all processes that
	// descend from it. It is looked at every Heartbeat of its group. At least 1 MiB, and
	// better far above what a worker begins with; 0 is any amount.
	MaxMemory int64
	// PSS counts what processes share once among them all, not for each of them. The kernel
	// has to walk through all pages of the process for that: 20 to 50 ms for 512 MiB,
	// in which the process may have to wait for memory. Other users' processes are root's to
	// ask.
	PSS bool
	// Jitter is by which part of them, at most, each worker's MaxAge and MaxRequests are
	// less than here, so that workers that have begun together do not end together. Default
	// 0.1; negative: none.
	Jitter float64
}

// Validate says which limit can't be. A program is one with a path of its own
// (Program.Path).
func (r Recycle) Validate(program bool) error {
	_, err := r.fault(program)
	return err
}

// fault says which field can't be, and why.
func (r Recycle) fault(program bool) (field string, err error) {
	switch {
	case r.MaxAge < 0:
		return "MaxAge", fmt.Errorf("max age %v: must not be negative", r.MaxAge)
	case r.MaxAge > 0 && r.MaxAge < leastAge:
		return "MaxAge", fmt.Errorf("max age %v: workers would do nothing but come and go, at least %v is needed", r.MaxAge, leastAge)
	case r.MaxRequests < 0:
		return "MaxRequests", fmt.Errorf("max requests %d: must not be negative", r.MaxRequests)
	case r.MaxRequests > 0 && program:
		return "MaxRequests", fmt.Errorf("max requests %d: a program does not say how many it has served: limit its age or its memory", r.MaxRequests)
	case r.MaxMemory < 0:
		return "MaxMemory", fmt.Errorf("max memory %d: must not be negative", r.MaxMemory)
	case r.MaxMemory > 0 && r.MaxMemory < leastMemory:
		return "MaxMemory", fmt.Errorf("max memory %s: no process has so little, at least %s is needed", memory.FormatSize(r.MaxMemory), memory.FormatSize(leastMemory))
	case r.PSS && r.MaxMemory == 0:
		return "MaxMemory", errors.New("PSS is about a max memory, and there is none")
	case !(r.Jitter < 1):
		return "Jitter", fmt.Errorf("jitter %v: a fraction below 1 is needed", r.Jitter)
	}
	return "", nil
}

// Or takes from other what r does not say; with nothing but a Jitter it says never.
func (r Recycle) Or(other Recycle) Recycle {
	if r.Jitter != 0 && r == (Recycle{Jitter: r.Jitter}) {
		return r
	}
	r.MaxAge, r.MaxRequests = cmp.Or(r.MaxAge, other.MaxAge), cmp.Or(r.MaxRequests, other.MaxRequests)
	if r.MaxMemory == 0 {
		r.MaxMemory, r.PSS = other.MaxMemory, r.PSS || other.PSS
	}
	r.Jitter = cmp.Or(r.Jitter, other.Jitter)
	return r
}

// draw makes a worker's own limits. They follow from what every parent knows of it for as long
// as it lives, and differ between machines.
func (r Recycle) draw(in *incarnation) lifecycle.Limits {
	u := rand.New(rand.NewPCG(uint64(clock.Up(in.began)), uint64(in.pid()))).Float64()
	limits := lifecycle.Limits{Age: r.MaxAge, Requests: r.MaxRequests, Memory: r.MaxMemory}
	return limits.Draw(r.Jitter, u)
}

// use is how far in has come.
func (in *incarnation) use(now time.Time) lifecycle.Use {
	return lifecycle.Use{Age: now.Sub(in.began), Requests: in.report.Requests, Memory: in.memory}
}

// wear is which part of its limits in has used up.
func (in *incarnation) wear(now time.Time) float64 {
	wear, _ := in.limits.Wear(in.use(now))
	return wear
}

// whyWorn is the limit that in has reached, for people.
func (in *incarnation) whyWorn(now time.Time) string {
	use := in.use(now)
	switch _, limit := in.limits.Wear(use); limit {
	case lifecycle.AgeLimit:
		return "age " + formatAge(use.Age)
	case lifecycle.RequestLimit:
		return formatCount(use.Requests) + " requests"
	default:
		return fmt.Sprintf("%v %s over %s", in.as.Recycle.kind(), memory.FormatSize(use.Memory), memory.FormatSize(in.limits.Memory))
	}
}

func (r Recycle) kind() memory.Kind {
	if r.PSS {
		return memory.PSS
	}
	return memory.RSS
}

// formatAge leaves out seconds that are 0: "24h0m".
func formatAge(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// formatCount writes "10,000".
func formatCount(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// worn is the workers of a group that have reached a limit and whose turn it is.
func (s *Set) worn(g *group) []int {
	limited := func(in *incarnation) bool { return in.limits != lifecycle.Limits{} }
	if !s.committed || s.stopping || !s.stopAt.IsZero() || !slices.ContainsFunc(g.members, limited) {
		return nil
	}
	workers := g.view()
	for i := range workers {
		if g.KeepFailed && workers[i].State == lifecycle.Degraded {
			workers[i].State = lifecycle.Serving // nobody else replaces it
		}
	}
	return lifecycle.Recycle(workers, s.want(g))
}

// recycle has those replaced.
func (s *Set) recycle(g *group) (changed bool) {
	for _, key := range s.worn(g) {
		in := g.member(key)
		in.worn = in.whyWorn(time.Now())
		s.logOf(in).Info("worker has reached a limit, it is being replaced", "reason", in.worn)
		changed = true
	}
	return changed
}

// nextWear is when it may be some worker's turn because of its age; zero: nobody knows.
func (s *Set) nextWear(g *group, now time.Time) (next time.Time) {
	if len(s.worn(g)) > 0 {
		return now // since this loop looked last
	}
	for _, in := range g.members {
		end := in.began.Add(in.limits.Age)
		if in.limits.Age > 0 && in.worn == "" && end.After(now) && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// dismiss notes that it was decided here that in ends.
func (s *Set) dismiss(in *incarnation) {
	if in.cause != "" {
		return
	}
	in.dismissed = true
	if in.worn != "" && in.slot <= in.group.Count { // and its replacement serves
		in.cause, in.reason = wire.CauseRecycle, in.worn
		in.group.slot(in.slot).failures = 0
	}
}

// missed reports whether somebody else has to take the place of one that has ended, and
// that was not decided here.
func (in *incarnation) missed() bool { return !in.dismissed && !in.needless }

// stay lets the worker of a slot go on that was to be recycled: its replacement, in, has
// come to nothing. Nobody misses that one.
func (s *Set) stay(in *incarnation) {
	for _, m := range in.group.members {
		if m.slot == in.slot && m.worn != "" && m.state.Accepts() {
			s.logOf(m).Warn("worker goes on, past its limit: its replacement has come to nothing", "reason", m.worn)
			m.worn, in.needless = "", true
		}
	}
}
