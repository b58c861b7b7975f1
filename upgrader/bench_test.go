//go:build linux

package upgrader

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
)

// envHold says in which way the program "hold" has its socket.
const envHold = "UPGRADER_TEST_HOLD"

// holdMain holds the listening socket on descriptor 3 and does nothing with it.
func holdMain() {
	switch os.Getenv(envHold) {
	case "listener":
		ln, err := net.FileListener(os.NewFile(3, "socket"))
		check(err)
		defer ln.Close()
	case "file":
		f := os.NewFile(3, "socket")
		defer f.Close()
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// BenchmarkHeldSocket counts how often a process that holds a socket for others
// wakes up while somebody else accepts: voluntary context switches per connection.
// It is why a Socket is a bare descriptor, and does not go through tableflip's
// AddFile, which makes an *os.File of it.
func BenchmarkHeldSocket(b *testing.B) {
	for _, how := range []string{"bare", "file", "listener"} {
		b.Run(how, func(b *testing.B) {
			s, err := openSocket(listen.Spec{Name: "a", Network: "tcp", Addr: "127.0.0.1:0"})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ln, err := s.Listener()
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			pid := hold(b, how, s.Fd())
			before, n := switches(b, pid), 0
			for b.Loop() {
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				a, err := ln.Accept()
				if err != nil {
					b.Fatal(err)
				}
				_ = c.(*net.TCPConn).SetLinger(0) // leave no TIME_WAIT
				c.Close()
				a.Close()
				n++
			}
			b.ReportMetric(float64(switches(b, pid)-before)/float64(n), "wakeups/conn")
		})
	}
}

// hold starts a process that holds fd.
func hold(b *testing.B, how string, fd int) (pid int) {
	stdin, stdinW, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	out, outW, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	// Not by File.Fd, which would make it blocking: a process that waits for
	// nothing does not wait in epoll_wait(2), and would not wake up at all.
	in, err := launch.Fd(stdin)
	if err != nil {
		b.Fatal(err)
	}
	p, err := launch.Start(launch.Spec{
		Path: launch.Self, Args: []string{"hold"}, Fds: []int{in, int(outW.Fd()), 2, fd},
		Env: append(os.Environ(), envProgram+"=hold", envHold+"="+how, "GORACE=atexit_sleep_ms=0"),
	})
	if err != nil {
		b.Fatal(err)
	}
	closeAll([]*os.File{stdin, outW})
	b.Cleanup(func() {
		stdinW.Close()
		out.Close()
		_ = p.Signal(syscall.SIGKILL)
		p.Wait()
		p.Close()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b.Fatal(line, err)
	}
	return p.Pid
}

// switches counts the voluntary context switches of all threads (proc(5)).
func switches(b *testing.B, pid int) (n int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			b.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		v, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]))
		if err != nil {
			b.Fatal(err)
		}
		n += v
	}
	return n
}
