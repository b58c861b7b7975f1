package faulttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// patience is how long a test waits for what should happen soon.
const patience = 30 * time.Second

// workers is how many each service has.
const workers = 2

// service is a service that runs, as its operator sees it.
type service struct {
	t        *testing.T
	dir      string
	bin      string // what it was started by, to be exchanged
	control  *control.Client
	socket   string // of control
	log      string // the file to which it prints
	cmd      *exec.Cmd
	addr     string
	load     *load.Load
	excused  []func(load.Result) load.Result
	plain    bool     // what serves is a program that knows little of what clients want
	reader   *os.File // the other end of what it prints to, if that is a pipe
	cgroup   string
	children string // name of processes that workers leave, if they do
}

// start starts the service that a row describes, and waits until it serves.
func start(t *testing.T, r row) *service {
	t.Helper()
	s := prepare(t, r)
	s.launch()
	if !s.comesUp() {
		t.Fatal("it does not serve")
	}
	s.settles()
	return s
}

// prepare makes all that a service needs to be launched.
func prepare(t *testing.T, r row) *service {
	t.Helper()
	dir := t.TempDir()
	// Its user may come here, and write.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chown(dir, r.user, r.user)); err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, dir: dir, bin: filepath.Join(dir, "shop"), plain: r.plain, children: r.children}
	s.good()
	s.cmd = exec.Command(s.bin, "run", "--name", "shop", "--probation", "0", "--drain-timeout", "10s",
		"--listen", "http=tcp://127.0.0.1:0", "--workers", fmt.Sprint(workers))
	s.cmd.Dir = dir
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "STATE_DIRECTORY="+dir)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.user != 0 {
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(r.user), Gid: uint32(r.user)}
	}
	s.moveControl(filepath.Join(dir, "c"))
	s.logTo(filepath.Join(dir, "log"))
	if r.start != nil {
		r.start(s)
	}
	s.cmd.Args = append(s.cmd.Args, "--control", s.socket)
	if r.more != nil {
		s.cmd.Args = append(s.cmd.Args, r.more(s)...)
	}
	return s
}

func (s *service) moveControl(path string) {
	s.socket, s.control = path, control.NewClient(path)
}

// logTo has the service print to that file.
func (s *service) logTo(path string) {
	s.t.Helper()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { out.Close() })
	s.log, s.cmd.Stdout, s.cmd.Stderr = path, out, out
}

// by has another command execute the service's.
func (s *service) by(name string, args ...string) {
	path, err := exec.LookPath(name)
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Path, s.cmd.Args = path, append(append([]string{name}, args...), s.cmd.Args...)
}

func (s *service) launch() {
	s.t.Helper()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.cleanup)
}

// comesUp waits until the service serves, or has ended.
func (s *service) comesUp() bool {
	s.t.Helper()
	up := false
	s.until(func() string {
		st, _, err := s.control.Status(s.t.Context())
		if err == nil && len(st.Groups) > 0 && slices.ContainsFunc(st.Groups[0].Workers, func(w workerset.Worker) bool { return w.State == "serving" }) {
			up = true
			s.addr = match(strings.Join(st.Listen, " "), `http=tcp://(\S+)`)
			return ""
		}
		// The kernel is asked, since in /proc a process is a zombie for a moment when it
		// executes another program, as the anchor does.
		var ended unix.Siginfo
		if err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, &ended, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == nil && ended.Signo != 0 {
			_ = s.cmd.Wait()
			return ""
		}
		return "it neither serves nor ends"
	})
	return up
}

// cleanup ends what a test that has failed has left.
func (s *service) cleanup() {
	if s.load != nil {
		s.load.Stop()
	}
	if s.cmd.ProcessState == nil {
		left, _ := procs.Descendants(s.cmd.Process.Pid)
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		for _, p := range left {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	if b, _ := os.ReadFile(s.log); s.t.Failed() {
		s.t.Logf("%s", b[max(0, len(b)-20_000):])
	}
}

// good puts the real program in its place, as a deployment does.
func (s *service) good() {
	s.put(func(tmp string) error {
		if os.Link(command, tmp) == nil {
			return nil
		}
		b, err := os.ReadFile(command)
		return errors.Join(err, os.WriteFile(tmp, b, 0o755))
	})
}

// put puts a file in the program's place.
func (s *service) put(way func(tmp string) error) {
	s.t.Helper()
	err := way(s.bin + ".new")
	// A process that was forked while the file was open for writing has it open, too, until it
	// executes its own, and nobody could execute it (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := errors.Join(err, os.Rename(s.bin+".new", s.bin)); err != nil {
		s.t.Fatal(err)
	}
}

// handover runs the command against the service.
func (s *service) handover(args ...string) (out string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, append(args, "--control", s.socket)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	b, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		s.t.Fatalf("%v: %v", args, err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// status is what the service says of itself; it has to.
func (s *service) status() control.Status {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	st, _, err := s.control.Status(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// parent is its pid.
func (s *service) parent() int {
	s.t.Helper()
	return s.status().Pid
}

// serving are the pids of the workers that serve.
func (s *service) serving() (pids []int) {
	s.t.Helper()
	for _, g := range s.status().Groups {
		for _, w := range g.Workers {
			if w.State == "serving" {
				pids = append(pids, w.Pid)
			}
		}
	}
	return pids
}

// settles waits until the service is as it should be: all workers serve, and there is no
// other process, not even a dead one.
func (s *service) settles() {
	s.t.Helper()
	s.until(func() string {
		st, _, err := s.control.Status(s.t.Context())
		if err != nil {
			return err.Error()
		}
		want := []int{st.Pid}
		for _, g := range st.Groups {
			for _, w := range g.Workers {
				if w.State != "serving" || w.Stale {
					return fmt.Sprintf("worker %d is %s", w.Pid, w.State)
				}
				want = append(want, w.Pid)
			}
		}
		if len(want) != 1+workers {
			return fmt.Sprintf("parent and workers are %v", want)
		}
		all, err := procs.Descendants(s.cmd.Process.Pid)
		if err != nil {
			return err.Error()
		}
		for _, p := range all {
			if !slices.Contains(want, p.PID) && (s.children == "" || p.Comm != s.children) {
				return fmt.Sprintf("there is another process: %v", p)
			}
		}
		return ""
	})
}

// until looks again and again until nothing is wrong.
func (s *service) until(wrong func() string) {
	s.t.Helper()
	what := wrong()
	for deadline := time.Now().Add(patience); what != ""; what = wrong() {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s", patience, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// begin begins a load of strict clients.
func (s *service) begin() {
	s.t.Helper()
	var err error
	clients := map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1}
	if !s.plain {
		clients[load.Stream], clients[load.KeepAlive] = 1, 2
	}
	s.load, err = load.Start(s.t.Context(), load.Config{
		Addr: s.addr, Rate: 20, WaitReady: patience, SlowMS: 100, StreamMS: 100, UploadMS: 100, Clients: clients,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// kill kills a worker. What it has is excused, and nothing else.
func (s *service) kill() {
	s.t.Helper()
	pid := s.serving()[0]
	if err := procs.Freeze(s.t.Context(), pid); err != nil {
		s.t.Fatal(err)
	}
	at := time.Now()
	peers, err := procs.Peers(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	s.excused = append(s.excused, func(r load.Result) load.Result { return r.ExceptAt(at, peers) })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH { // it may have been taken for hung
		s.t.Fatal(err)
	}
	s.until(func() string {
		for _, g := range s.status().Groups {
			if slices.ContainsFunc(g.Deaths, func(d workerset.Death) bool { return d.Pid == pid }) {
				return ""
			}
		}
		return "the parent does not notice that a worker is dead"
	})
}

// end ends the load: no client has noticed anything.
func (s *service) end() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.load.WaitEach(ctx, 2); err != nil {
		s.t.Error(err)
	}
	r := s.load.Stop()
	s.load = nil
	for _, excuse := range s.excused {
		r = excuse(r)
	}
	if err := r.Check(); err != nil {
		s.t.Errorf("clients noticed: %v", err)
	}
	s.t.Logf("%d requests, %d failed, %d died with their workers", r.Started, r.Failures.Total(), r.Excused)
}

// upgrade has to work.
func (s *service) upgrade() {
	s.t.Helper()
	if out, code := s.handover("upgrade", "--wait", "serve"); code != 0 {
		s.t.Fatalf("upgrade: exit code %d: %s", code, out)
	}
	s.settles()
}

// files is how many descriptors the parent has.
func (s *service) files() int {
	s.t.Helper()
	fds, err := procs.FDs(s.parent())
	if err != nil {
		s.t.Fatal(err)
	}
	return len(fds)
}

// stop ends the service, in order, and with all that it has started.
func (s *service) stop() {
	s.t.Helper()
	all, err := procs.Descendants(s.cmd.Process.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("after the stop: %v", err)
		}
	case <-time.After(patience):
		s.t.Error("it does not stop")
		_ = s.cmd.Process.Kill()
		<-ended
	}
	for _, p := range all {
		if now, err := procs.Descendants(os.Getpid()); err != nil || slices.ContainsFunc(now, func(n procs.Process) bool { return n.PID == p.PID && n.Start == p.Start && n.State != 'Z' }) {
			s.t.Errorf("%v is left (%v)", p, err)
		}
	}
}

// said is what there is in the log.
func (s *service) said() string {
	b, _ := os.ReadFile(s.log)
	return string(b)
}

// prlimit sets a soft limit of a process, as its user.
func (s *service) prlimit(pid int, what string, limit uint64) {
	s.t.Helper()
	cmd := exec.Command("prlimit", fmt.Sprintf("--pid=%d", pid), fmt.Sprintf("--%s=%d:", what, limit))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cmd.SysProcAttr.Credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("prlimit: %v\n%s", err, bytes.TrimSpace(out))
	}
}

func match(s, re string) string {
	if m := regexp.MustCompile(re).FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}
