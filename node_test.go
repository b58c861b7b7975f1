package handover_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/load"
)

// nodeProgram is the command line of a program of testdata/workers for Node.
func nodeProgram(t testing.TB, file string, args ...string) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed (Debian: apt-get install nodejs)")
	}
	path, err := filepath.Abs(filepath.Join("testdata", "workers", file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append([]string{node, path}, args...), " ")
}

// count is how many lines of the log are ok.
func (s *service) count(ok func(string) bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if ok(line) {
			n++
		}
	}
	return n
}

// TestTutorial: the worker of a tutorial on Node processes, which fails after every
// answer and says so to its master, has this parent for one. Every request is answered:
// at once as long as a worker can be had for each of them, else later.
func TestTutorial(t *testing.T) {
	for _, c := range []struct {
		name     string
		limit    string // how many replacements there are at once, and within which time
		rate     float64
		requests int
		waits    bool
	}{
		{"below the burst limit", `"Burst": 60, "Per": 60000000000`, 6, 30, false},
		// However slow a machine is, and its Node, this is too many for it.
		{"above", `"Burst": 4, "Per": 4000000000`, 30, 30, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := grouped(t, `[{"Name": "web", "Workers": 2, `+c.limit+`}]`,
				"TEST_COMMAND="+nodeProgram(t, "tutorial.js"), "TEST_OFFER=message", "TEST_LISTEN=server=tcp://127.0.0.1:0")
			failed, waits := has(`msg="worker failed, it is being replaced"`, "suicide"), has(`next worker waits"`)
			l, err := load.Start(t.Context(), load.Config{
				Addr: s.addr, Rate: c.rate, MaxRequests: c.requests, Timeout: 2 * time.Minute, Clients: map[load.Kind]int{load.New: 1},
			})
			if err != nil {
				t.Fatal(err)
			}
			<-l.Done()
			r := l.Stop()
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			t.Logf("%d answered, p50 %v, max %v, by %d workers, %d failed", r.OK, r.Latency.P50, r.Latency.Max, len(r.Workers), s.count(failed))
			if n := s.count(waits); n > 0 != c.waits {
				t.Errorf("%d workers had to wait", n)
			}
			// One replacement for each: a worker that has accepted several requests answers
			// them all.
			until(t, time.Minute, func() string {
				ended, serve := s.count(has(`msg="worker exited"`)), s.count(has(`msg="worker serves"`))
				if n, left := s.count(failed), len(s.workers()); ended != n || serve != n+2 || left != 2 {
					return fmt.Sprintf("%d failed, %d ended, %d served, %d are there", n, ended, serve, left)
				}
				return ""
			})
			s.stop()
			// None of what the parent has said otherwise was a message to the program.
			if n, m := s.count(has("| message")), s.count(has(`| message "server"`)); n != m || n < 2 {
				t.Errorf("%d messages, %d with the socket", n, m)
			}
		})
	}
}

// TestCluster: a program that uses cluster is upgraded under load, with its socket from
// here, and knows nothing of it.
func TestCluster(t *testing.T) {
	addr := freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	s := startService(t, 2, "TEST_COMMAND="+nodeProgram(t, "cluster.js", port), "TEST_NODE_CHANNEL=cluster", "TEST_LISTEN=http=tcp://"+addr)
	l := s.loadOf(20, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1})
	for i := range 10 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("web/1/1/%d", i+2))
	}
	check(t, l)
	// They drain although something else would keep them running.
	until(t, 10*time.Second, func() string {
		if n := len(s.workers()); n != 2 {
			return fmt.Sprintf("%d workers", n)
		}
		return ""
	})
	s.stop()
	if n := s.count(has("| message")); n > 0 {
		t.Errorf("%d messages to the program", n)
	}
	if n := s.count(has("worker is late")); n > 0 {
		t.Errorf("%d workers had to be ended", n)
	}
}

// TestNonblockingForNode: Node takes a socket that comes in a message as it is, and would
// hang in accept(2) when another worker was faster.
func TestNonblockingForNode(t *testing.T) {
	command := "TEST_COMMAND=" + nodeProgram(t, "tutorial.js")
	for name, env := range map[string]string{"offered": "TEST_OFFER=message", "cluster": "TEST_NODE_CHANNEL=cluster"} {
		t.Run(name, func(t *testing.T) {
			s := startService(t, 1, command, env, "TEST_READY=10ms", "TEST_LISTEN=server=tcp://127.0.0.1:0")
			if !nonblocking(t, s.parent(), s.addr) {
				t.Error("the socket is blocking")
			}
			s.stop()
		})
	}
	t.Run("from a supervisor", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f := fileOf(t, ln.(*net.TCPListener))
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
			t.Fatal(err)
		}
		s := supervised(t, "server", []*os.File{f}, command, "TEST_OFFER=message", "TEST_LISTEN=server=tcp://127.0.0.1:0")
		if !nonblocking(t, s.parent(), s.addr) {
			t.Error("the socket is blocking")
		}
		s.stop()
	})
}

// nonblocking looks at the flag of the socket of a process that listens on addr (proc(5)).
func nonblocking(t *testing.T, pid int, addr string) bool {
	t.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	inode := match(string(table), fmt.Sprintf(`:%04X 00000000:0000 0A(?: +\S+){5} +(\d+) `, ap.Port()))
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
			info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, filepath.Base(fd)))
			if err != nil {
				t.Fatal(err)
			}
			flags, err := strconv.ParseUint(match(string(info), `flags:\s+(\d+)`), 8, 32)
			if err != nil {
				t.Fatal(err)
			}
			return flags&unix.O_NONBLOCK != 0
		}
	}
	t.Fatalf("process %d does not have the socket of %s", pid, addr)
	return false
}
