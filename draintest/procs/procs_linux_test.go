package procs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/load"
)

// helpers are what this test binary does instead of testing when PROCS_HELPER names one
// of them.
var helpers = map[string]func() error{}

func TestMain(m *testing.M) {
	if name := os.Getenv("PROCS_HELPER"); name != "" {
		if err := helpers[name](); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// within bounds a wait, generously: reaching it is a failure of the test.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func init() {
	helpers["reaper"] = reaper
	helpers["leaver"] = leaver
	helpers["left"] = func() error { _, err := io.Copy(io.Discard, os.NewFile(3, "pipe")); return err }
	helpers["holder"] = holder
	helpers["worker"] = worker
	helpers["busy"] = busy
	helpers["headless"] = headless
	if os.Getenv("PROCS_HELPER") == "headless" {
		runtime.LockOSThread() // main runs on the first thread, then
	}
}

// helper runs this test binary as one of helpers, killed at the end of the test at the latest.
func helper(ctx context.Context, name string, files ...*os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-helper="+name)
	// The race detector sleeps for a second before a process ends.
	cmd.Env = append(os.Environ(), "PROCS_HELPER="+name, "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	return cmd
}

// startHelper starts one and returns what it prints, line by line.
func startHelper(t *testing.T, name string, files ...*os.File) (*exec.Cmd, *bufio.Scanner) {
	cmd := helper(context.Background(), name, files...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

func mustScan(t *testing.T, s *bufio.Scanner) string {
	t.Helper()
	if !s.Scan() {
		t.Fatal("the helper has ended:", s.Err())
	}
	return s.Text()
}

// Waiting for all children is tried in a process of its own, whose children nobody
// else waits for.
func TestOrphansAreFoundAndReaped(t *testing.T) {
	t.Parallel()
	cmd := helper(within(t), "reaper")
	cmd.Stderr = nil // comes with the output
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func reaper() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := Subreaper(); err != nil {
		return err
	}
	if err := ReapAll(ctx); err != nil {
		return fmt.Errorf("without children: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	out, err := helper(ctx, "leaver", r).Output()
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	left, err := Descendants(os.Getpid())
	if err != nil {
		return err
	}
	if len(left) != 1 || left[0].PID != pid || left[0].PPID != os.Getpid() || !slices.Contains(left[0].Args, "-helper=left") {
		return fmt.Errorf("want process %d as the only child, found %v", pid, left)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	err = ReapAll(gone)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d (parent %d,", pid, os.Getpid())) {
		return fmt.Errorf("ReapAll must name process %d: %v", pid, err)
	}
	w.Close() // which it waits for
	if err := ReapAll(ctx); err != nil {
		return err
	}
	if left, err := Descendants(os.Getpid()); err != nil || len(left) != 0 {
		return fmt.Errorf("left: %v, %v", left, err)
	}
	return nil
}

// leaver leaves a child behind.
func leaver() error {
	cmd := helper(context.Background(), "left", os.NewFile(3, "pipe"))
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	return nil
}

// headless is a process whose first thread has ended, and which lives.
func headless() error {
	go func() {
		for {
			b, err := os.ReadFile("/proc/self/stat")
			p, perr := parseStat(b)
			if err := errors.Join(err, perr); err != nil || p.State == 'Z' {
				fmt.Println("headless", err)
				select {}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, _, errno := unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

// A process is no zombie as long as a thread of it lives.
func TestHeadless(t *testing.T) {
	t.Parallel()
	cmd, out := startHelper(t, "headless")
	if line := mustScan(t, out); line != "headless <nil>" {
		t.Fatal(line)
	}
	all, err := Descendants(os.Getpid())
	i := slices.IndexFunc(all, func(p Process) bool { return p.PID == cmd.Process.Pid })
	if err != nil || i < 0 || ended(all[i].State) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestDescendantsShowAZombie(t *testing.T) {
	t.Parallel()
	cmd, out := startHelper(t, "left") // has no descriptor 3: fails at once
	for out.Scan() {
	}
	// Its output ends a moment before it does; waitid with WNOWAIT leaves the zombie.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	all, err := Descendants(os.Getpid())
	i := slices.IndexFunc(all, func(p Process) bool { return p.PID == cmd.Process.Pid })
	if err != nil || i < 0 || all[i].State != 'Z' || !strings.Contains(all[i].String(), "state Z") {
		t.Errorf("%v, %v", all, err)
	}
	if err := Freeze(within(t), cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a zombie can't be frozen: %v", err)
	}
}

func TestFDs(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fds, err := FDs(os.Getpid())
	if err != nil || fds[int(f.Fd())] != f.Name() {
		t.Errorf("%v, %v", fds, err)
	}
	if _, err := FDs(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}

// holder accepts three connections, says so for each, and holds them.
func holder() error {
	ln, err := net.Listen("tcp", ":0") // IPv6, too, where there is
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr().(*net.TCPAddr).Port)
	for range 3 {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		defer c.Close() // held until the end
		fmt.Println("accepted")
	}
	select {} // until killed
}

func TestPeers(t *testing.T) {
	t.Parallel()
	cmd, out := startHelper(t, "holder")
	port := mustScan(t, out)
	want := map[string]bool{}
	for i := range 5 {
		network, host := "tcp4", "127.0.0.1"
		if _, err := os.Stat("/proc/net/if_inet6"); err == nil && i%2 == 1 {
			network, host = "tcp6", "::1"
		}
		c, err := net.Dial(network, net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i < 3 { // the others stay in the queue
			mustScan(t, out)
			want[c.LocalAddr().String()] = true
		}
	}
	if err := Freeze(within(t), cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	got, err := Peers(cmd.Process.Pid)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("peers are %v (%v), want %v", got, err, want)
	}
}

func busy() error {
	for range 3 {
		go func() {
			for i := 0; ; i++ {
			}
		}()
	}
	fmt.Println("busy")
	select {}
}

func TestFrozenMeansAllThreads(t *testing.T) {
	t.Parallel()
	cmd, out := startHelper(t, "busy")
	mustScan(t, out)
	for range 20 {
		if err := Freeze(within(t), cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if stopped, err := allStopped(cmd.Process.Pid); !stopped || err != nil {
			t.Fatalf("not stopped, %v", err)
		}
		if err := unix.Kill(cmd.Process.Pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// worker serves the inherited listener.
func worker() error {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		<-time.After(time.Duration(ms) * time.Millisecond)
		io.WriteString(w, "here I am")
	}))
}

// One of two workers is killed: what it held fails and may, the rest may not.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { file.Close(); ln.Close() }()
	victim, out := startHelper(t, "worker", file)
	mustScan(t, out)
	_, out = startHelper(t, "worker", file)
	mustScan(t, out)

	l, err := load.Start(t.Context(), load.Config{
		Addr: ln.Addr().String(), WaitReady: time.Minute, Clients: map[load.Kind]int{load.New: 1, load.Slow: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	pid := victim.Process.Pid
	var moment time.Time
	var peers map[string]bool
	for len(peers) < 3 { // a worker that holds nothing loses nothing
		unix.Kill(pid, unix.SIGCONT)
		if err := l.WaitWorker(within(t), func(w string) bool { return w == strconv.Itoa(pid) }); err != nil {
			t.Fatal(err)
		}
		if err := Freeze(within(t), pid); err != nil {
			t.Fatal(err)
		}
		moment = time.Now()
		if peers, err = Peers(pid); err != nil {
			t.Fatal(err)
		}
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitEach(within(t), 5); err != nil {
		t.Fatal(err)
	}
	r := l.Stop()
	if err := r.Check(); err == nil || r.Failures.Total() > len(peers) || len(r.Workers) != 2 {
		t.Errorf("a killed worker with %d connections passes:\n%v", len(peers), r)
	}
	x := r.ExceptAt(moment, peers)
	if err := x.Check(); err != nil || x.Excused != r.Failures.Total() {
		t.Error(err)
	}
	t.Logf("%d connections, %d failed: %v", len(peers), r.Failures.Total(), r.Failures)
}

// What is known of this process, and of its sockets.
func TestSelf(t *testing.T) {
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p Process) bool { return p.PID == os.Getpid() })
	if i < 0 || all[i].PPID != os.Getppid() || all[i].Start == 0 {
		t.Fatalf("this process is not in the list as it is: %+v", all)
	}
	if args, err := Args(os.Getpid()); err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("arguments %q, %v", args, err)
	}
	if env, err := Environ(os.Getpid()); err != nil || len(env) == 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if n, err := Memory(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	const none = 1 << 30
	_, err1 := Args(none)
	_, err2 := Environ(none)
	_, err3 := Memory(none)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("of no process: %v", err)
		}
	}
}

// Sockets of clients do not stand, others do.
func TestStanding(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var standing, passing []any
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		ln, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		standing, passing = append(standing, ln), append(passing, a)
		at, err := Listeners(network, ln.Addr().String())
		if err != nil || len(at) != 1 || !at[inodeOf(t, ln)] {
			t.Errorf("at %s listens %v, %v", ln.Addr(), at, err)
		}
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	standing = append(standing, u)
	found, err := Standing()
	if err != nil {
		t.Fatal(err)
	}
	for i, list := range [][]any{standing, passing} {
		for _, s := range list {
			if inode := inodeOf(t, s); found[inode] != (i == 0) {
				t.Errorf("%T %s stands: %t", s, inode, found[inode])
			}
		}
	}
}

func inodeOf(t *testing.T, s any) (inode string) {
	t.Helper()
	raw, err := s.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { inode, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) })
	if err != nil {
		t.Fatal(err)
	}
	return inode
}
