//go:build unix

package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// supervisor opens a notification socket and names it in the environment, so
// that tests which use it can't be parallel.
func supervisor(t *testing.T, addr string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv(Env, addr)
	return conn
}

// receive reads one notification and the descriptors that came with it.
func receive(t *testing.T, conn *net.UnixConn) (string, []int) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 4096), make([]byte, 1024)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(buf[:n]), fds
}

func addresses(t *testing.T) map[string]string {
	m := map[string]string{"path": filepath.Join(t.TempDir(), "notify")}
	if runtime.GOOS == "linux" {
		m["abstract"] = fmt.Sprintf("@handover-test/%s/%d", t.Name(), os.Getpid())
	}
	return m
}

func TestSend(t *testing.T) {
	for name, addr := range addresses(t) {
		t.Run(name, func(t *testing.T) {
			conn := supervisor(t, addr)
			if !Enabled() {
				t.Error("not enabled")
			}
			if err := Send("READY=1", "MAINPID=7"); err != nil {
				t.Fatal(err)
			}
			text, fds := receive(t, conn)
			if text != "READY=1\nMAINPID=7" || len(fds) != 0 {
				t.Errorf("received %q and %d descriptors", text, len(fds))
			}
		})
	}
}

func TestBarrier(t *testing.T) {
	for name, addr := range addresses(t) {
		t.Run(name, func(t *testing.T) {
			conn := supervisor(t, addr)
			before := openFiles(t)
			answer := make(chan error, 1)
			go func() { answer <- Barrier(time.Minute) }()
			text, fds := receive(t, conn)
			if text != "BARRIER=1" || len(fds) != 1 {
				t.Fatalf("received %q and %d descriptors", text, len(fds))
			}
			select {
			case err := <-answer:
				t.Errorf("the barrier opened before it was answered: %v", err)
			default:
			}
			unix.Close(fds[0])
			if err := <-answer; err != nil {
				t.Error(err)
			}
			if n := openFiles(t); n != before {
				t.Errorf("%d open files, %d before", n, before)
			}
		})
	}
}

func TestBarrierUnanswered(t *testing.T) {
	conn := supervisor(t, filepath.Join(t.TempDir(), "notify"))
	before := openFiles(t)
	err := Barrier(time.Nanosecond) // what is not late at all is sent all the same
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "1ns") {
		t.Errorf("error %v", err)
	}
	_, fds := receive(t, conn)
	for _, fd := range fds {
		unix.Close(fd)
	}
	if n := openFiles(t); n != before {
		t.Errorf("%d open files, %d before", n, before)
	}
}

// A supervisor that is stopped must not stop the service, and one that goes on
// must get what waited.
func TestFullQueue(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the size of the queue is Linux'")
	}
	conn := supervisor(t, filepath.Join(t.TempDir(), "notify"))
	soon := func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	queued := 0
	for send("STATUS=x", nil, soon()) == nil {
		if queued++; queued > 100_000 {
			t.Fatal("the queue has no end")
		}
	}
	if err := send("STATUS=x", nil, soon()); !errors.Is(err, ErrTimeout) {
		t.Errorf("error %v", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- Send("STATUS=late") }()
	for i := range queued {
		if text, _ := receive(t, conn); text != "STATUS=x" {
			t.Fatalf("message %d: %q", i, text)
		}
	}
	if text, _ := receive(t, conn); text != "STATUS=late" {
		t.Errorf("message %q", text)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestNoSupervisor(t *testing.T) {
	t.Setenv(Env, "")
	if Enabled() {
		t.Error("enabled")
	}
	if err := errors.Join(Send("READY=1"), Barrier(time.Hour)); err != nil {
		t.Error(err)
	}
}

func TestBadAddress(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		addr string
		want error
	}{
		{"notify", ErrAddress},
		{"vsock:2:1", ErrAddress},
		{"@", ErrAddress},
		{"/", ErrAddress},
		{os.TempDir(), syscall.ECONNREFUSED},
		{missing, os.ErrNotExist},
		{"/" + strings.Repeat("x", 200), syscall.EINVAL},
	} {
		t.Setenv(Env, c.addr)
		before := openFiles(t)
		for _, err := range []error{Send("READY=1"), Barrier(time.Hour)} {
			if !errors.Is(err, c.want) {
				t.Errorf("%s: error %v, want %v", c.addr, err, c.want)
			} else if !strings.Contains(err.Error(), c.addr) {
				t.Errorf("%s: the error does not name it: %v", c.addr, err)
			}
		}
		if n := openFiles(t); n != before {
			t.Errorf("%s: %d open files, %d before", c.addr, n, before)
		}
	}
}

// openFiles counts this process's descriptors, where that is possible.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil && runtime.GOOS == "linux" {
		t.Fatal(err)
	}
	return len(list)
}

// A process that names another one says nothing after that, also what it had been about to
// say, until it names itself.
func TestName(t *testing.T) {
	conn := supervisor(t, filepath.Join(t.TempDir(), "notify"))
	for range 20 {
		var talks sync.WaitGroup
		quit := make(chan struct{})
		for range 4 {
			talks.Go(func() {
				for {
					select {
					case <-quit:
						return
					default:
						_ = Send("WATCHDOG=1")
						runtime.Gosched()
					}
				}
			})
		}
		named := make(chan error)
		receive(t, conn)
		go func() { named <- Name(1, "READY=1") }()
		for text := ""; text != "MAINPID=1\nREADY=1"; text, _ = receive(t, conn) {
		}
		if err := <-named; err != nil {
			t.Fatal(err)
		}
		close(quit)
		talks.Wait()
		if err := Store("x", os.Stderr); err != nil {
			t.Error(err)
		}
		if err := Name(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if text, _ := receive(t, conn); text != fmt.Sprintf("MAINPID=%d", os.Getpid()) {
			t.Fatalf("after it has named another one it says %q", text)
		}
	}
}
