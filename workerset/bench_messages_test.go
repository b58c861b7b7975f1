//go:build linux

package workerset_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/workerset"
)

func init() {
	hostile["bare echo"] = func(c channel) { // lines, without anything
		r := bufio.NewReaderSize(c, 64<<10)
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if _, err := c.Write(line); err != nil {
				return
			}
		}
	}
}

// benchTalkers are a set for a benchmark.
func benchTalkers(b *testing.B, n int) *workerset.Set {
	b.Helper()
	sock, _ := heldSocket(b)
	cfg := workerset.Config{
		Name: "test", Sockets: map[string]int{"http": sock}, CPUs: runtime.NumCPU(), // as handover.Main has it
		Program: workerset.Program{Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0")},
		Groups:  []workerset.Group{{Name: "web", Count: n, DrainTimeout: 5 * time.Second}},
	}
	talking(&cfg, n, filepath.Join(b.TempDir(), "notes"))
	cfg.Groups = cfg.Groups[:1]
	set, err := workerset.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- set.Run() }()
	b.Cleanup(func() { set.Stop(); <-ended })
	if err := set.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return set
}

// asParent has this process run with as many CPUs as a parent does, or as any other program.
func asParent(v bool) {
	if v {
		runtime.GOMAXPROCS(1)
	} else {
		runtime.GOMAXPROCS(runtime.NumCPU())
	}
}

// bare are processes that send back every line, by a socket pair each.
func bare(b *testing.B, n int) (ends []*os.File) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for range n {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			b.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		env := append(os.Environ(), "HANDOVER_CHANNEL_FD=3", "HANDOVER_WORKER=web/1/1/1", do("always:bare echo"),
			fmt.Sprintf("GOMAXPROCS=%d", max(1, runtime.NumCPU()/n)))
		fd, err := launch.Fd(theirs)
		if err != nil {
			b.Fatal(err)
		}
		p, err := launch.Start(launch.Spec{Path: exe, Args: []string{exe}, Env: env, Fds: []int{0, 1, 2, fd}})
		if err != nil {
			b.Fatal(err)
		}
		theirs.Close()
		b.Cleanup(func() { ours.Close(); p.Wait(); p.Close() })
		ends = append(ends, ours)
	}
	return ends
}

// BenchmarkRequest is a request to a worker and its answer, against a line to a process
// and back, and against Node's process.send and back.
func BenchmarkRequest(b *testing.B) {
	const n = 3000
	workers := runtime.NumCPU() // by default: one for each CPU
	set := benchTalkers(b, workers)
	end := bare(b, workers)[0]
	r := bufio.NewReader(end)
	line := []byte(`{"hello":"world"}` + "\n")
	node := nodeEcho(b)
	var ours, bares, nodes time.Duration
	for b.Loop() {
		for range 10 { // in turn: the machine is shared
			asParent(true)
			begin := time.Now()
			for range n / 10 {
				if err := set.Messages().Request(b.Context(), message.Slot("web", 1), "echo", "hello", nil); err != nil {
					b.Fatal(err)
				}
			}
			ours += time.Since(begin)
			asParent(false)
			begin = time.Now()
			for range n / 10 {
				if _, err := end.Write(line); err != nil {
					b.Fatal(err)
				}
				if _, err := r.ReadSlice('\n'); err != nil {
					b.Fatal(err)
				}
			}
			bares += time.Since(begin)
			nodes += node(n / 10)
		}
	}
	total := float64(b.N * n)
	b.ReportMetric(float64(ours.Microseconds())/total, "µs/request")
	b.ReportMetric(float64(bares.Microseconds())/total, "µs/bare")
	b.ReportMetric(float64(nodes.Microseconds())/total, "µs/node")
	b.ReportMetric(float64(ours)/float64(bares), "request/bare")
	b.ReportMetric(float64(nodes)/float64(ours), "node/request")
}

// nodeEcho has Node send so many messages to a child and back.
func nodeEcho(b *testing.B) func(n int) time.Duration {
	node, err := exec.LookPath("node")
	if err != nil {
		return func(int) time.Duration { return 0 }
	}
	script := filepath.Join(b.TempDir(), "echo.js")
	text := `
const {fork} = require('child_process');
if (process.send) { process.on('message', m => process.send(m)); return; }
const child = fork(__filename);
let left = 0, begin;
child.on('message', () => { if (--left > 0) child.send({hello: 'world'}); else console.log(String(process.hrtime.bigint() - begin)); });
require('readline').createInterface({input: process.stdin}).on('line', n => { left = +n; begin = process.hrtime.bigint(); child.send({hello: 'world'}); })
  .on('close', () => child.disconnect());
`
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(node, script)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	r := bufio.NewReader(out)
	return func(n int) (d time.Duration) {
		fmt.Fprintln(in, n)
		line, err := r.ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		ns := int64(0)
		_, _ = fmt.Sscan(line, &ns)
		return time.Duration(ns)
	}
}

// BenchmarkBroadcast is 1 KiB to 64 workers, and the wait until all have handled it,
// against 64 lines of 1 KiB to processes that send them back.
func BenchmarkBroadcast(b *testing.B) {
	const workers, n = 64, 50
	set := benchTalkers(b, workers)
	ends := bare(b, workers)
	data := strings.Repeat("x", 1<<10)
	line := []byte(`"` + data + `"` + "\n")
	readers := make([]*bufio.Reader, workers)
	for i, e := range ends {
		readers[i] = bufio.NewReader(e)
	}
	var ours, bares time.Duration
	for b.Loop() {
		for range n {
			asParent(true)
			begin := time.Now()
			if err := set.Messages().Send(b.Context(), message.Group("web"), "ignore", data); err != nil {
				b.Fatal(err)
			}
			ours += time.Since(begin)
			asParent(false)
			begin = time.Now()
			for _, e := range ends {
				if _, err := e.Write(line); err != nil {
					b.Fatal(err)
				}
			}
			for _, r := range readers {
				if _, err := r.ReadSlice('\n'); err != nil {
					b.Fatal(err)
				}
			}
			bares += time.Since(begin)
		}
	}
	total := float64(b.N * n)
	b.ReportMetric(float64(ours.Microseconds())/total, "µs/broadcast")
	b.ReportMetric(float64(bares.Microseconds())/total, "µs/bare")
	b.ReportMetric(float64(ours)/float64(bares), "broadcast/bare")
}

// BenchmarkMillion is a million messages through one worker: each handled, in order, and
// no memory kept.
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	set := benchTalkers(b, 1)
	asParent(true)
	defer asParent(false)
	for b.Loop() {
		var wg sync.WaitGroup
		begin := time.Now()
		var first, last float64
		for i := range n {
			sent, err := set.Messages().Post(b.Context(), message.Slot("web", 1), "count", i)
			if err != nil {
				b.Fatal(err)
			}
			wg.Go(func() {
				if _, err := sent.Wait(context.Background()); err != nil {
					b.Error(err)
				}
			})
			if i == n/10 {
				first = memory()
			}
		}
		last = memory()
		wg.Wait()
		var seen int
		if err := set.Messages().Request(b.Context(), message.Slot("web", 1), "counted", nil, &seen); err != nil || seen != n {
			b.Errorf("%d counted in order, %v", seen, err)
		}
		b.ReportMetric(n/time.Since(begin).Seconds(), "messages/s")
		b.ReportMetric(last/first, "memory-end/tenth")
	}
}

// memory is what this process and its children have, in bytes, with the garbage collected
// here.
func memory() (total float64) {
	runtime.GC()
	pids := []int{os.Getpid()}
	pids = append(pids, launch.Children()...)
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		var size, rss float64
		if err == nil {
			_, _ = fmt.Sscan(string(b), &size, &rss)
		}
		total += rss * float64(os.Getpagesize())
	}
	return total
}
