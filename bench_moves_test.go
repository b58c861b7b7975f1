package handover_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// keeper is a client that keeps its connection, and asks once for each upgrade.
type keeper struct {
	net.Conn
	r *bufio.Reader
}

func (k keeper) ask() error {
	_ = k.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := k.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		return err
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.Close {
		return fmt.Errorf("the answer closes the connection")
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

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
		cmd := exec.Command(bin)
		if os.Getuid() == 0 {
			for _, dir := range []string{filepath.Dir(bin), filepath.Dir(filepath.Dir(bin))} {
				if err := os.Chmod(dir, 0o777); err != nil {
					b.Fatal(err)
				}
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		return cmd
	}, 2, "TEST_APP=plain")
	conns := make([]keeper, count)
	for i := range conns {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = keeper{c, bufio.NewReaderSize(c, 512)}
		defer c.Close()
		if err := conns[i].ask(); err != nil {
			b.Fatal(err)
		}
	}
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
			if err := conns[i].ask(); err != nil {
				closed++
			}
		}
	}
	s.stop()
	b.ReportMetric(median(took), "s/upgrade")
	b.ReportMetric(float64(closed), "closed")
	b.ReportMetric(0, "ns/op")
}
