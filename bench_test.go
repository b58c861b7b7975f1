package handover_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/moving"
	"github.com/handover-go/handover/workerset"
)

// Every benchmark prints ratios against something measured in the same run: the
// machine may be busy, the ratio hardly changes.

// plainName is the test binary as a bare net/http server on descriptor 3.
const plainName = "plain"

func plainMain() {
	ln, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = http.Serve(ln, http.HandlerFunc(plainHandler))
}

func plainHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
	_, _ = io.WriteString(w, "hello\n")
}

func startPlain(b *testing.B, fd int, procs int) *launch.Process {
	b.Helper()
	p, err := launch.Start(launch.Spec{
		Path: launch.Self, Args: []string{plainName}, Fds: []int{0, 1, 2, fd},
		// As workers have: the kernel shares CPUs out by session (sched(7),
		// autogroup), and one session for all plain processes is an advantage.
		Setsid: true,
		Env:    append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", procs)),
	})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func stopPlain(p *launch.Process) {
	_ = p.Signal(syscall.SIGKILL)
	p.Wait()
	p.Close()
}

func startSet(b *testing.B, fd, workers, cpus int) (set *workerset.Set, stop func()) {
	b.Helper()
	give, take, err := moving.Pair()
	if err != nil {
		b.Fatal(err)
	}
	set, err = workerset.New(workerset.Config{
		Name: "bench", Groups: []workerset.Group{{
			Name: "web", Count: workers, Burst: 1_000_000, Env: []string{"TEST_APP=plain"},
			Queues: map[string]workerset.Queue{"http": {Give: give, Take: take}},
		}},
		Sockets: map[string]int{"http": fd}, CPUs: cpus, Logger: quiet(),
	})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = set.Run() })
	if err := set.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return set, func() {
		set.Stop()
		wg.Wait()
		unix.Close(give)
		unix.Close(take)
	}
}

// hammerName is the test binary as a client: a process of its own, on one CPU, so
// that it costs every server the same.
const hammerName = "hammer"

// hammerMain sends keep-alive requests on 64 connections to the address for the
// time and prints how many were answered.
func hammerMain() {
	d, err := time.ParseDuration(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	die := func(err error) {
		fmt.Fprintln(os.Stderr, "no answer:", err)
		os.Exit(1)
	}
	request := []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	ask := func(c net.Conn, buf []byte) {
		_, err := c.Write(request)
		if err == nil {
			// The answer is small and sent at once: one read has it all.
			_, err = c.Read(buf)
		}
		if err != nil || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) {
			die(err)
		}
	}
	// One after the other, each with a request: in a burst, the process that wakes
	// up first would get most of them, and the benchmark would measure that.
	conns := make([]net.Conn, 64)
	for i := range conns {
		c, err := net.Dial("tcp", os.Args[1])
		if err != nil {
			die(err)
		}
		ask(c, make([]byte, 4096))
		conns[i] = c
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	stop := time.Now().Add(d)
	for _, c := range conns {
		wg.Go(func() {
			for buf := make([]byte, 4096); time.Now().Before(stop); n.Add(1) {
				ask(c, buf)
			}
		})
	}
	wg.Wait()
	fmt.Println(n.Load())
	os.Exit(0)
}

// hammer returns how many requests a second the server at addr answers.
func hammer(b *testing.B, addr string, d time.Duration) float64 {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = []string{hammerName, addr, d.String()}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		b.Fatal(err)
	}
	return float64(n) / d.Seconds()
}

// BenchmarkServing compares two workers of a set with two plain processes that
// share a listener, and with one plain process on the same CPUs. The spans are
// short and the ratios those of neighbours, because the machine's speed drifts.
func BenchmarkServing(b *testing.B) {
	const span = time.Second
	plain := func(count int) func() float64 {
		return func() float64 {
			ln, fd := heldSocket(b)
			for range count {
				p := startPlain(b, fd, 2/count)
				defer stopPlain(p)
			}
			return hammer(b, ln.Addr().String(), span)
		}
	}
	set := func() float64 {
		ln, fd := heldSocket(b)
		_, stop := startSet(b, fd, 2, 2)
		defer stop()
		return hammer(b, ln.Addr().String(), span)
	}
	ways := []func() float64{set, plain(2), plain(1)}
	var rate, two, one []float64
	for i := 0; b.Loop(); i++ {
		var got [3]float64
		for j := range ways {
			k := (i + j) % len(ways) // nobody is always first
			got[k] = ways[k]()
		}
		rate, two, one = append(rate, got[0]), append(two, got[0]/got[1]), append(one, got[0]/got[2])
	}
	b.ReportMetric(median(rate), "req/s")
	b.ReportMetric(median(two), "×two-plain")
	b.ReportMetric(median(one), "×one-plain")
	b.ReportMetric(0, "ns/op")
}

// floor is exec of this binary to its first HTTP answer.
func floor(b *testing.B) time.Duration {
	b.Helper()
	ln, fd := heldSocket(b)
	start := time.Now()
	p := startPlain(b, fd, 1)
	ask(b, ln.Addr().String())
	d := time.Since(start)
	stopPlain(p)
	return d
}

// ask sends one request on a connection of its own and returns who answered.
func ask(b *testing.B, addr string) string {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		b.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		b.Fatal(err)
	}
	return resp.Header.Get("X-Worker")
}

// BenchmarkKillToServing is SIGKILL of the only worker until its replacement
// answers, against the floor.
func BenchmarkKillToServing(b *testing.B) {
	ln, fd := heldSocket(b)
	set, stop := startSet(b, fd, 1, 1)
	defer stop()
	var took, bare []float64
	for b.Loop() {
		bare = append(bare, float64(floor(b)))
		st, err := set.Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		pid := st.Groups[0].Workers[0].Pid
		start := time.Now()
		_ = syscall.Kill(pid, syscall.SIGKILL)
		for ask(b, ln.Addr().String()) == strconv.Itoa(pid) {
		}
		took = append(took, float64(time.Since(start)))
	}
	b.ReportMetric(median(took)/1e6, "ms")
	b.ReportMetric(median(took)/median(bare), "×floor")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHUPToServing is SIGHUP to the anchor until the new generation answers,
// against the floor.
func BenchmarkHUPToServing(b *testing.B) {
	s := startService(b, 1, "TEST_APP=plain")
	var took, bare []float64
	for b.Loop() {
		bare = append(bare, float64(floor(b)))
		from := s.mark()
		old := ask(b, s.addr)
		start := time.Now()
		s.signal(syscall.SIGHUP)
		// Asking all the time would take the CPUs from what is measured.
		if _, err := s.waitFrom(from, has(`msg="worker serves"`)); err != nil {
			b.Fatal(err)
		}
		for ask(b, s.addr) == old {
		}
		took = append(took, float64(time.Since(start)))
		if _, err := s.waitFrom(from, has(`msg="generation serves"`)); err != nil {
			b.Fatal(err)
		}
	}
	s.stop()
	b.ReportMetric(median(took)/1e6, "ms")
	b.ReportMetric(median(took)/median(bare), "×floor")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkParent is what a parent with four workers costs that has nothing to do.
func BenchmarkParent(b *testing.B) {
	s := startService(b, 4, "TEST_APP=plain")
	pid := s.parent()
	idle := 5 * time.Second
	if d, err := time.ParseDuration(os.Getenv("IDLE")); err == nil {
		idle = d
	}
	for b.Loop() {
		before := cpuTime(b, pid)
		time.Sleep(idle)
		b.ReportMetric(100*(cpuTime(b, pid)-before).Seconds()/idle.Seconds(), "%cpu")
		b.ReportMetric(float64(rss(b, pid))/1024, "MB-rss")
	}
	s.stop()
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what the kernel has counted for the process, to 1 ns (proc(5),
// schedstat of every thread).
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	var sum time.Duration
	for _, f := range files {
		t, _ := os.ReadFile(f)
		ns, _ := strconv.ParseInt(strings.Fields(string(t) + " 0")[0], 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

func rss(b *testing.B, pid int) (kB int) {
	b.Helper()
	t, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	kB, _ = strconv.Atoi(match(string(t), `VmRSS:\s+(\d+)`))
	return kB
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
