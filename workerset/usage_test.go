//go:build linux

package workerset

import (
	"os"
	"testing"
)

// TestMeasure: who runs is measured, nobody else. It measures this process, and so is not
// parallel to what needs memory.
func TestMeasure(t *testing.T) {
	st := Status{Groups: []GroupStatus{{Workers: []Worker{
		{Pid: os.Getpid(), State: "serving"}, {Pid: os.Getpid(), State: "exited"}, {State: "spawning"}, {Pid: 1 << 30, State: "serving"},
	}}}}
	var m Meter
	m.Measure(&st)
	ws := st.Groups[0].Workers
	if u := ws[0].Usage; u == nil || u.CPU < 0 || u.RSS < 1<<20 || u.PSS > 2*u.RSS || u.PSS <= 0 && u.RSS <= cheapPSS {
		t.Errorf("%+v", u)
	}
	for _, w := range ws[1:] {
		if w.Usage != nil {
			t.Errorf("%+v of %+v", w.Usage, w)
		}
	}
	first := ws[0].Usage
	if m.Measure(&st); ws[0].Usage != first {
		t.Error("it is measured again at once")
	}
	m.at = m.at.Add(-2 * measureEvery)
	if m.Measure(&st); ws[0].Usage == first {
		t.Error("it is not measured again")
	}
}

func BenchmarkUsage(b *testing.B) {
	for b.Loop() {
		usage(os.Getpid())
	}
}
