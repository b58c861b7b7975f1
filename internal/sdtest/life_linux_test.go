package sdtest_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/sdtest"
)

// TestJournald: what the service prints is in the journal, before and after a restart
// of the journal, which the service does not notice.
func TestJournald(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}")})
		invocation := s.show("InvocationID")
		l := s.load(25)
		s.printed("generation serves", 1)
		m.Must(t, "restart", "systemd-journald.service")
		s.reload()
		s.printed("generation serves", 2)
		m.Must(t, "kill", "--signal=KILL", "systemd-journald.service")
		s.reload()
		s.printed("generation serves", 3)
		s.script("echo no database >&2; exit 1")
		s.fails("no database")
		s.check(l)
		s.same(invocation)
	})
}

// TestJournaldStopped: nobody reads what the service prints. What it prints later is lost,
// other than from systemd 254 on, and that is all.
func TestJournaldStopped(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		for name, more := range map[string]string{"parent": "", "single": " --single"} {
			t.Run(name, func(t *testing.T) {
				s := newShop(t, m)
				s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}" + more)})
				invocation := s.show("InvocationID")
				l := s.load(25)
				m.Must(t, "stop", "systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
				defer m.Must(t, "start", "systemd-journald.service")
				if name == "parent" {
					s.reload()
					s.script("echo no database >&2; exit 1")
					s.refused()
					s.good()
					s.reload()
				}
				s.check(l)
				s.same(invocation)
				answer, went := make(chan error, 1), make(chan struct{})
				go func() { answer <- slow(s.addr, 500*time.Millisecond, went) }()
				<-went
				m.Must(t, "stop", unit) // of which it says something
				if err := <-answer; err != nil {
					t.Errorf("a request that was under way: %v", err)
				}
				if got := s.show("Result"); got != "success" {
					t.Errorf("after the stop Result is %s", got)
				}
			})
		}
	})
}

// printed waits until the journal has a line so often.
func (s *shop) printed(what string, times int) {
	s.t.Helper()
	s.until(func() string {
		if n := strings.Count(s.m.Journal(unit), what); n != times {
			return fmt.Sprintf("%q is in the journal %d times, not %d", what, n, times)
		}
		return ""
	})
}

// TestReexec: systemd itself changes to another binary, and reads its configuration
// anew.
func TestReexec(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}")})
		invocation := s.show("InvocationID")
		l := s.load(25)
		for range 2 {
			s.reload()
			main := s.show("MainPID")
			m.Must(t, "daemon-reexec")
			m.Must(t, "daemon-reload")
			if got := s.show("MainPID"); got != main {
				t.Errorf("MainPID is %s, and was %s", got, main)
			}
			s.script("echo no database >&2; exit 1")
			s.fails("no database")
			s.good()
		}
		s.reload()
		s.check(l)
		s.same(invocation)
	})
}

// TestNotifyReload: with Type=notify-reload systemd sends HUP itself, and waits until the
// service says that it is done. (That it has failed can't be said.)
func TestNotifyReload(t *testing.T) {
	sdtest.EachFrom(t, 253, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: strings.NewReplacer("Type=notify\n", "Type=notify-reload\n",
			"ExecReload={dir}/ctl upgrade --wait serve --name shop\n", "").Replace(plainUnit("--listen http=tcp://{addr}"))})
		invocation := s.show("InvocationID")
		l := s.load(25)
		for range 5 {
			s.reload()
			s.script("echo no database >&2; exit 1")
			main := s.show("MainPID")
			m.Must(t, "reload", unit)
			if got := s.show("MainPID"); got != main {
				t.Errorf("after a reload that failed MainPID is %s, and was %s", got, main)
			}
			s.status(" failed ")
			s.good()
		}
		s.check(l)
		s.same(invocation)
	})
}

// status waits until 'systemctl status' says something.
func (s *shop) status(want string) {
	s.t.Helper()
	s.until(func() string {
		// Not of the journal, and with exit code 3 if the service has ended.
		if out, _ := s.m.Systemctl("status", "--lines=0", "--full", unit); !strings.Contains(out, want) {
			return fmt.Sprintf("the status does not say %q: %s", want, out)
		}
		return ""
	})
}

// TestStatus: 'systemctl status' tells how the service is, and how the last upgrade went.
func TestStatus(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}")})
		s.status(`Status: "generation 1: 2 of 2 workers serve"`)
		s.reload()
		s.status(`Status: "generation 2: 2 of 2 workers serve; upgraded `)
		s.script("echo no database >&2; exit 1")
		s.fails("no database")
		s.status("upgrade to generation 3 failed")
		m.Must(t, "stop", unit)
		if got := s.show("Result"); got != "success" {
			t.Errorf("after the stop Result is %s", got)
		}
	})
}

// TestPortTaken: systemd says why the service could not start.
func TestPortTaken(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		for name, more := range map[string]string{"parent": "", "single": " --single"} {
			t.Run(name, func(t *testing.T) {
				s := newShop(t, m)
				ln, err := net.Listen("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				text := strings.Replace(plainUnit("--listen http=tcp://{addr}"+more), "Restart=always", "Restart=no", 1)
				m.Install(t, map[string]string{unit: s.text(text)})
				if out, code := m.Systemctl("start", unit); code == 0 {
					t.Errorf("started, on a port that is taken: %s", out)
				}
				if got, want := s.show("StatusErrno"), fmt.Sprint(int(unix.EADDRINUSE)); got != want {
					t.Errorf("StatusErrno is %s, not %s", got, want)
				}
				s.status("address already in use")
			})
		}
	})
}

// TestSlowStop: a drain that takes longer than TimeoutStopSec= is not cut, since the
// service says that it goes on.
func TestSlowStop(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		for name, more := range map[string]string{"parent": "", "single": " --single"} {
			t.Run(name, func(t *testing.T) {
				s := newShop(t, m)
				s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}"+more, "TimeoutStopSec=1s")})
				answer, went := make(chan error, 1), make(chan struct{})
				go func() { answer <- slow(s.addr, 3*time.Second, went) }()
				<-went
				m.Must(t, "stop", unit)
				if err := <-answer; err != nil {
					t.Errorf("a request that was under way: %v", err)
				}
				if got := s.show("Result"); got != "success" {
					t.Errorf("after the stop Result is %s", got)
				}
			})
		}
	})
}

// slow makes a request that takes so long, and says when the server has it.
func slow(addr string, d time.Duration, went chan<- struct{}) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://%s/stream?ms=%d", addr, d.Milliseconds()))
	close(went) // its first part is there
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// TestWatchdog: a service of which the parent hangs, or all workers, is restarted. One
// that does its work is not, whatever happens to it.
func TestWatchdog(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr} --hung-after -1s", "WatchdogSec=2s", "WatchdogSignal=SIGKILL")})
		invocation := s.show("InvocationID")
		l := s.load(10)
		s.reload()
		s.script("sleep 0.5; exit 1")
		s.fails("exit status 1")
		// Nothing happens, and it lives. (To count restarts would take long: who asks for
		// time by EXTEND_TIMEOUT_USEC= is not watched meanwhile.)
		signs := map[string]bool{}
		s.until(func() string {
			signs[s.show("WatchdogTimestampMonotonic")] = true
			if len(signs) < 8 {
				return fmt.Sprintf("it has said %d times that it lives", len(signs)-1)
			}
			return ""
		})
		s.good()
		s.check(l)
		s.same(invocation)

		parent := s.show("MainPID")
		for restarts, pids := range [][]string{{parent}, nil} {
			if pids == nil { // all but the new parent
				pids = slices.DeleteFunc(s.processes(), func(pid string) bool { return pid == s.show("MainPID") })
			}
			for _, pid := range pids {
				if out, code := m.Exec("sh", "-c", "kill -STOP "+pid); code != 0 {
					t.Fatal(out)
				}
			}
			s.until(func() string {
				if n := s.show("NRestarts"); n != strconv.Itoa(restarts+1) || s.show("ActiveState") != "active" {
					return fmt.Sprintf("%d processes are stopped, and NRestarts is %s", len(pids), n)
				}
				return ""
			})
			s.status("generation 1: 2 of 2 workers serve")
		}
	})
}

// processes are those of the service.
func (s *shop) processes() []string {
	s.t.Helper()
	out, code := s.m.Exec("cat", "/sys/fs/cgroup/system.slice/"+unit+"/cgroup.procs")
	if code != 0 {
		s.t.Fatal(out)
	}
	return strings.Fields(out)
}
