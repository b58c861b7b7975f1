package handover_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/load"
)

// BenchmarkManyIdle is an upgrade of a service with 10,000 idle connections, whose user
// is an ordinary one: root does not see the limit of descriptors that are on their way
// (unix(7), ETOOMANYREFS).
func BenchmarkManyIdle(b *testing.B) {
	const count = 10_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < count+1000 {
		b.Skipf("a limit of %d descriptors does not allow %d connections", limit.Cur, count)
	}
	s := startServiceBy(b, func(bin string) *exec.Cmd {
		return ordinary(b, 65534, exec.Command(bin), bin)
	}, 2, "TEST_APP=plain")
	conns := keep(b, s.addr, count)
	var took []float64
	closed := 0
	for b.Loop() {
		var old []unix.PollFd
		for _, pid := range s.workers() {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				b.Fatal(err)
			}
			old = append(old, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		start := time.Now()
		s.upgrade()
		for _, p := range old {
			for n, err := 0, error(nil); n == 0 && (err == nil || err == unix.EINTR); {
				n, err = unix.Poll([]unix.PollFd{p}, -1)
			}
			unix.Close(int(p.Fd))
		}
		took = append(took, time.Since(start).Seconds())
		for i := range conns {
			if _, err := conns[i].ask(); err != nil {
				closed++
			}
		}
	}
	s.stop()
	b.ReportMetric(median(took), "s/upgrade")
	b.ReportMetric(float64(closed), "closed")
	b.ReportMetric(0, "ns/op")
}

// ordinary has a command run as an ordinary user, and makes it possible for that one to
// execute bin and to write beside it.
func ordinary(t testing.TB, uid uint32, cmd *exec.Cmd, bin string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		return cmd
	}
	for _, dir := range []string{filepath.Dir(bin), filepath.Dir(filepath.Dir(bin))} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// BenchmarkUpgradeLatency is the 99th percentile of requests while upgrades go on, over
// that while idle processes of the same program are started and ended instead: as many as
// an upgrade starts, which are a parent and two workers, and one for each upgrade.
func BenchmarkUpgradeLatency(b *testing.B) {
	s := startService(b, 2)
	var up, one, three []float64
	for b.Loop() {
		up = append(up, p99During(b, s.addr, s.upgrade))
		one = append(one, p99During(b, s.addr, func() { startAndEnd(b, 1) }))
		three = append(three, p99During(b, s.addr, func() { startAndEnd(b, 3) }))
	}
	s.stop()
	b.ReportMetric(median(up)/1e6, "ms-p99")
	b.ReportMetric(median(up)/median(one), "×one-idle")
	b.ReportMetric(median(up)/median(three), "×three-idle")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSoloLatency is BenchmarkUpgradeLatency of a service of one process, of which
// an upgrade starts one.
func BenchmarkSoloLatency(b *testing.B) {
	s := startSolo(b, "tcp://"+freeAddr(b), "TEST_APP=plain")
	var up, one []float64
	for b.Loop() {
		up = append(up, p99During(b, s.addr, s.upgrade))
		one = append(one, p99During(b, s.addr, func() { startAndEnd(b, 1) }))
	}
	b.ReportMetric(median(up)/1e6, "ms-p99")
	b.ReportMetric(median(up)/median(one), "×one-idle")
	b.ReportMetric(0, "ns/op")
}

// p99During is the 99th percentile, in ns, while something is done again and again.
func p99During(b *testing.B, addr string, act func()) float64 {
	b.Helper()
	const rounds, pause = 20, 100 * time.Millisecond
	l, err := load.Start(b.Context(), load.Config{
		Addr: addr, Rate: 20, WaitReady: 10 * time.Second, Plain: true,
		Clients: map[load.Kind]int{load.KeepAlive: 40, load.New: 4},
	})
	if err != nil {
		b.Fatal(err)
	}
	for range rounds {
		act()
		time.Sleep(pause)
	}
	r := l.Stop()
	if err := r.Check(); err != nil {
		b.Fatal(err)
	}
	return float64(r.Latency.P99)
}

// startAndEnd has so many idle processes of the same program come up and end.
func startAndEnd(b *testing.B, n int) {
	b.Helper()
	_, fd := heldSocket(b)
	for range n {
		defer stopPlain(startPlain(b, fd, 1))
	}
	time.Sleep(20 * time.Millisecond) // they come up
}

// BenchmarkKept is an upgrade, the end of a worker that somebody else asks for, and one
// that fails, under the load of 150 strict clients that keep their connections. What they
// notice is a failure.
func BenchmarkKept(b *testing.B) {
	s := startService(b, 2)
	l, err := load.Start(b.Context(), load.Config{
		Addr: s.addr, Rate: 100, WaitReady: 20 * time.Second,
		Clients: map[load.Kind]int{load.KeepAlive: 150},
	})
	if err != nil {
		b.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for b.Loop() {
		s.upgrade()
		from, pid := s.mark(), s.workers()[0]
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		s.exits(from, strconv.Itoa(pid))
		from = s.mark()
		resp, err := client.Get("http://" + s.addr + "/fail")
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		s.exits(from, match(resp.Header.Get("X-Worker"), `pid=(\d+)`))
	}
	r := l.Stop()
	if err := r.Check(); err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(r.Started)/r.Elapsed.Seconds(), "req/s")
	b.ReportMetric(float64(r.Started-r.OK), "failed")
	b.ReportMetric(float64(r.ClosedIdle), "closed")
	b.ReportMetric(float64(len(r.Workers)), "processes")
	b.ReportMetric(0, "ns/op")
	s.stop()
}
