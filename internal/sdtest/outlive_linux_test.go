package sdtest_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/sdtest"
)

// workers are all processes of the service but the main one.
func (s *shop) workers() []string {
	s.t.Helper()
	main := s.show("MainPID")
	pids := slices.DeleteFunc(s.processes(), func(pid string) bool { return pid == main })
	slices.Sort(pids)
	return pids
}

// restarted waits until systemd has started the service anew, for the nth time.
func (s *shop) restarted(n int) {
	s.t.Helper()
	s.until(func() string {
		if got := s.show("NRestarts"); got != strconv.Itoa(n) || s.show("ActiveState") != "active" {
			return fmt.Sprintf("NRestarts is %s, and it is %s", got, s.show("ActiveState"))
		}
		return ""
	})
}

// empty fails the test if the service has left anything.
func (s *shop) empty() {
	s.t.Helper()
	if out, code := s.m.Exec("cat", "/sys/fs/cgroup/system.slice/"+unit+"/cgroup.procs"); code == 0 && out != "" {
		s.t.Errorf("left behind: %s", out)
	}
}

// TestOutlive: from systemd 254 on the workers of a parent that is killed, or hangs, serve on,
// and the next one takes them over. No client notices, and a stop leaves nothing.
func TestOutlive(t *testing.T) {
	for name, program := range map[string]string{"ours": "", "program": "yes"} {
		t.Run(name, func(t *testing.T) {
			sdtest.EachFrom(t, 254, func(t *testing.T, m *sdtest.Machine) {
				s := newShop(t, m)
				args := []string{"--listen", "http=tcp://" + s.addr, "--workers", "2", "--watchdog", "1s"}
				if program != "" {
					args = append(args, "--handover", s.dir+"/ctl", "--ready", "http:/", "--",
						s.dir+"/handover", "run", "--single", "--listen", "http=tcp://"+s.addr)
				}
				s.start(s.generate(args...))
				s.reload()
				l := s.loadOf(load.Config{Rate: 20, Clients: map[load.Kind]int{load.New: 2, load.Slow: 2, load.KeepAlive: 4}})
				workers := s.workers()
				for i, signal := range []string{"KILL", "KILL", "STOP"} {
					m.Must(t, "kill", "--signal="+signal, "--kill-who=main", unit)
					s.restarted(i + 1)
					s.status(`"generation 2: 2 of 2 workers serve`)
					if now := s.workers(); !slices.Equal(now, workers) {
						t.Errorf("after SIG%s the workers are %v, they were %v", signal, now, workers)
					}
				}
				s.check(l)
				l = s.loadOf(load.Config{Rate: 20, Clients: map[load.Kind]int{load.New: 2, load.Slow: 2}})
				s.good()
				s.reload()
				s.status(`"generation 3: 2 of 2 workers serve`)
				s.check(l)
				m.Must(t, "stop", unit)
				s.empty()
			})
		})
	}
}

// TestSweep: of a service that could not stop, since its parent hangs, nothing is left.
func TestSweep(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		units := s.generate("--listen", "http=tcp://"+s.addr, "--workers", "2", "--drain-timeout", "90s", "--watchdog", "0",
			"--", s.dir+"/handover", "run", "--single", "--listen", "http=tcp://"+s.addr)
		units[unit] = strings.Replace(units[unit], "TimeoutStopSec=100s", "TimeoutStopSec=1s", 1)
		s.start(units)
		answer, went := make(chan error, 1), make(chan struct{})
		go func() { answer <- slow(s.addr, 60*time.Second, went) }()
		<-went
		m.Must(t, "stop", "--no-block", unit)
		s.until(func() string { // systemd continues what it asks to stop
			if text := s.show("StatusText"); !strings.Contains(text, "stops") {
				return "it says: " + text
			}
			return ""
		})
		m.Must(t, "kill", "--signal=STOP", "--kill-who=main", unit)
		s.until(func() string {
			if state := s.show("ActiveState"); state != "failed" && state != "inactive" {
				return "it is " + state
			}
			return ""
		})
		s.empty()
		<-answer
		if j := m.Journal(unit); strings.Count(j, "was left behind: killed") == 0 {
			t.Errorf("the journal does not say who was left: %s", j)
		}
	})
}

// TestKilledWithoutStore: before systemd 254 nothing is kept: the workers drain, and the next
// parent starts anew.
func TestKilledWithoutStore(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		units := s.generate("--listen", "http=tcp://"+s.addr, "--workers", "2")
		units[unit] = strings.Replace(units[unit], "FileDescriptorStoreMax=1024", "FileDescriptorStoreMax=0", 1)
		s.start(units)
		answer, went := make(chan error, 1), make(chan struct{})
		go func() { answer <- slow(s.addr, 2e9, went) }()
		<-went
		m.Must(t, "kill", "--signal=KILL", "--kill-who=main", unit)
		if err := <-answer; err != nil {
			t.Errorf("a request that was under way: %v", err)
		}
		s.status(`"generation 1: 2 of 2 workers serve`)
		s.check(s.load(25))
	})
}
