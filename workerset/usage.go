package workerset

import (
	"sync"
	"time"

	"github.com/handover-go/handover/internal/cputime"
	"github.com/handover-go/handover/internal/memory"
)

// Usage is what a worker's process has taken of the machine. It does not change.
type Usage struct {
	// CPU is the time that it has used, in seconds, with what the children had that it has
	// waited for.
	CPU float64 `json:"cpu"`
	// RSS and PSS are what it has of memory now, in bytes, with all that descend from it;
	// PSS divides what is shared among those who share it, and is left out where finding
	// out takes long.
	RSS int64 `json:"rss"`
	PSS int64 `json:"pss,omitempty"`
}

// cheapPSS is up to which RSS, in bytes, PSS is looked for: the kernel walks through all
// pages, at about 100 MB a millisecond.
const cheapPSS = 256 << 20

// Conn is a connection that is open.
type Conn struct {
	Peer  string `json:"peer,omitempty"` // the client's address, if it has one
	State string `json:"state"`          // new, idle, active, hijacked; or open, if that is all that is known
	AgeMS int64  `json:"age"`            // in milliseconds, when it was asked
}

// Meter measures what workers use. The zero value is good, and its method may be called
// from any goroutine.
type Meter struct {
	mu    sync.Mutex
	at    time.Time
	usage map[int]*Usage // by pid
}

// measureEvery is for how long a Usage is good: to look takes up to 1 ms for each worker, and
// somebody may ask a thousand times a second.
const measureEvery = 500 * time.Millisecond

// Measure fills in the Usage of the workers that run, as far as it can be known, on Linux:
// as it is now, or was a moment ago.
func (m *Meter) Measure(s *Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.at) > measureEvery {
		m.at, m.usage = time.Now(), map[int]*Usage{}
	}
	for i := range s.Groups {
		for j := range s.Groups[i].Workers {
			w := &s.Groups[i].Workers[j]
			if w.Pid == 0 || w.State == "exited" {
				continue
			}
			if m.usage[w.Pid] == nil {
				m.usage[w.Pid] = usage(w.Pid)
			}
			w.Usage = m.usage[w.Pid]
		}
	}
}

// usage is nil if the process can't be looked at.
func usage(pid int) *Usage {
	cpu, err := cputime.Of(pid)
	if err != nil {
		return nil
	}
	u := &Usage{CPU: cpu.Seconds()}
	if u.RSS, err = memory.Of(pid, memory.RSS); err != nil {
		return nil
	}
	if u.RSS <= cheapPSS {
		u.PSS, _ = memory.Of(pid, memory.PSS)
	}
	return u
}
