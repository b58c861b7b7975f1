package deathtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
)

// patience bounds what should happen at once; settleTime is what the table promises.
const (
	patience   = 30 * time.Second
	settleTime = 10 * time.Second
)

// shop is a service.
type shop struct {
	t       *testing.T
	dir     string
	env     []string
	mark    string // of its environment, which names the test
	cmd     *exec.Cmd
	held    *os.File // the socket, if it is the test's
	addr    string
	control *control.Client
	exited  chan struct{}
	reader  sync.WaitGroup

	mu   sync.Mutex
	log  []string
	more chan struct{}
}

// open starts a service that has a socket of its own. Its processes ask the test what to do at a
// step; its workers may drain for so long.
func open(t *testing.T, step string, drain time.Duration) *shop {
	t.Helper()
	s := prepare(t, step, drain)
	s.start()
	s.addr = regexp.MustCompile(`listen="?\S*tcp://([^\s,"]+)`).FindStringSubmatch(s.await("msg=started"))[1]
	return s
}

// hold makes a socket for a service that is not started yet, which stays when the service ends,
// as systemd's do: whoever connects waits for the next one.
func hold(t *testing.T, step string, drain time.Duration) *shop {
	t.Helper()
	s := prepare(t, step, drain)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if s.held, err = ln.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.held.Close() })
	s.addr = ln.Addr().String()
	s.env = append(s.env, "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	return s
}

func prepare(t *testing.T, step string, drain time.Duration) *shop {
	t.Helper()
	dir, err := os.MkdirTemp("", "death") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &shop{t: t, dir: dir, mark: envMark + "=" + dir, more: make(chan struct{})}
	s.env = []string{s.mark, envStep + "=" + step, envAsk + "=" + s.ask(), envControl + "=" + filepath.Join(dir, "control"), envDrain + "=" + drain.String(), "GORACE=atexit_sleep_ms=0"}
	s.control = control.NewClient(filepath.Join(dir, "control"))
	bin, self := s.bin(), "/proc/self/exe"
	if exe, err := os.Executable(); err == nil {
		self = exe
	}
	if os.Link(self, bin) != nil {
		b, err := os.ReadFile(self)
		if err := errors.Join(err, os.WriteFile(bin, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, p := range s.processes() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		s.reader.Wait()
		if t.Failed() {
			t.Log(strings.Join(s.log, "\n"))
		}
	})
	return s
}

func (s *shop) bin() string { return filepath.Join(s.dir, serviceName) }

// start starts the service, for the first time, or when it has ended.
func (s *shop) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.bin())
	if s.held != nil {
		s.cmd = exec.Command("/bin/sh", "-c", `export LISTEN_PID=$$; exec "$0"`, s.bin()) // see sd_listen_fds(3)
		s.cmd.ExtraFiles = []*os.File{s.held}
	}
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		r.Close()
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	s.reader.Go(func() { s.read(r) })
	s.reader.Go(func() { _ = cmd.Wait(); close(exited) })
}

func (s *shop) ask() string { return filepath.Join(s.dir, "ask") }

func (s *shop) read(r io.ReadCloser) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		s.mu.Lock()
		s.log = append(s.log, sc.Text())
		close(s.more)
		s.more = make(chan struct{})
		s.mu.Unlock()
	}
}

// await waits for a line of the log.
func (s *shop) await(text string) string {
	s.t.Helper()
	limit := time.After(patience)
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.log, func(l string) bool { return strings.Contains(l, text) })
		line := ""
		if i >= 0 {
			line = s.log[i]
		}
		more := s.more
		s.mu.Unlock()
		if i >= 0 {
			return line
		}
		select {
		case <-more:
		case <-limit:
			s.t.Fatalf("it does not say %q", text)
		}
	}
}

// process is one of the service's.
type process struct {
	procs.Process
	role string // "anchor", "parent", "worker web/1" and so on
}

// processes are all that live, or have not been reaped, whoever's children they are.
func (s *shop) processes() (list []process) {
	all, err := procs.List()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range all {
		env, err := procs.Environ(p.PID)
		if p.PID == os.Getpid() || err != nil || !slices.Contains(env, s.mark) {
			continue
		}
		args, _ := procs.Args(p.PID)
		role := "?"
		if len(args) > 0 {
			role = strings.TrimPrefix(args[0], serviceName+": ")
		}
		list = append(list, process{p, role})
	}
	return list
}

// who are the processes of a role, the oldest first.
func (s *shop) who(role string) (pids []int) {
	var list []process
	for _, p := range s.processes() {
		if strings.HasPrefix(p.role, role) && p.State != 'Z' && p.State != 'X' {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b process) int { return int(a.Start) - int(b.Start) })
	for _, p := range list {
		pids = append(pids, p.PID)
	}
	return pids
}

// asked is where the first process that takes the step asks what to do, from now on.
func (s *shop) asked() net.Listener {
	s.t.Helper()
	ln, err := net.Listen("unix", s.ask())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ln.Close() })
	return ln
}

// taker waits for the process that takes the step, which waits until the function is called.
func (s *shop) taker(ln net.Listener) (pid int, goOn func()) {
	s.t.Helper()
	_ = ln.(*net.UnixListener).SetDeadline(time.Now().Add(patience))
	c, err := ln.Accept()
	if err != nil {
		s.t.Fatalf("the step is not taken: %v", err)
	}
	ln.Close() // others pass
	line, err := bufio.NewReader(c).ReadString('\n')
	if pid, _ = strconv.Atoi(strings.TrimSpace(line)); err != nil || pid == 0 {
		s.t.Fatalf("%q: %v", line, err)
	}
	return pid, func() { c.Close() }
}

// settled says what is not as it should be, "" if nothing: each group is complete, in one
// generation, and there is no other process. Without an anchor there is none.
func (s *shop) settled(anchored bool) string {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	st, _, err := s.control.Status(ctx)
	if err != nil {
		return err.Error()
	}
	want := []int{st.Pid}
	if anchored {
		want = append(want, s.cmd.Process.Pid)
	}
	for _, g := range st.Groups {
		for _, w := range g.Workers {
			want = append(want, w.Pid)
			if w.State != "serving" || w.Stale || w.Generation != st.Generation {
				return fmt.Sprintf("worker %s/%d, pid %d, of generation %d is %s", w.Group, w.Slot, w.Pid, w.Generation, w.State)
			}
		}
		if len(g.Workers) != g.Count {
			return fmt.Sprintf("group %s has %d workers, not %d", g.Name, len(g.Workers), g.Count)
		}
	}
	var have []int
	for _, p := range s.processes() {
		have = append(have, p.PID)
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		return fmt.Sprintf("the processes are %v, the service knows of %v", have, want)
	}
	if st.Upgrading {
		return "an upgrade is under way"
	}
	all, err := procs.List()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range all {
		if p.State == 'Z' && slices.Contains(have, p.PPID) {
			return fmt.Sprintf("process %d is a zombie, and %d does not reap it", p.PID, p.PPID)
		}
	}
	return ""
}

// settle waits until it is so.
func (s *shop) settle(anchored bool) {
	s.t.Helper()
	limit := time.Now().Add(settleTime)
	for {
		what := s.settled(anchored)
		if what == "" {
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("after %v: %s", settleTime, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// descriptors counts those of a process that are no client's.
func (s *shop) descriptors(pid int) int {
	s.t.Helper()
	fds, err := procs.FDs(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(fds)
}
