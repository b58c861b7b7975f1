package shop

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
)

// Patience bounds what should happen at once; SettleTime is how long a service may take until all
// is as it should be, whatever has happened.
const (
	Patience   = 30 * time.Second
	SettleTime = 10 * time.Second
)

// maxLog is how many lines of the log are kept.
const maxLog = 5000

// Shop is a service.
type Shop struct {
	Dir     string
	Addr    string // "127.0.0.1:PORT"
	Anchor  int    // its pid
	Control *control.Client

	t      *testing.T
	env    []string
	mark   string   // of these, which all its processes have
	held   *os.File // the socket, if it is the test's
	exited chan struct{}
	wg     sync.WaitGroup

	mu   sync.Mutex
	log  []string
	more chan struct{}
}

// Open starts a service that has a socket of its own, and gets these variables, too. When the test
// ends so does what is left of it.
func Open(t *testing.T, env ...string) *Shop {
	t.Helper()
	s := prepare(t, env)
	s.Start()
	_, s.Addr, _ = strings.Cut(s.await(started), "tcp://")
	return s
}

// Hold makes a socket for a service that is not started yet, which stays when the service ends,
// as systemd's do: whoever connects waits for the next one.
func Hold(t *testing.T, env ...string) *Shop {
	t.Helper()
	s := prepare(t, append(env, "LISTEN_FDS=1", "LISTEN_FDNAMES=http"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if s.held, err = ln.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.held.Close() })
	s.Addr = ln.Addr().String()
	return s
}

func prepare(t *testing.T, env []string) *Shop {
	t.Helper()
	dir, err := os.MkdirTemp("", "shop") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Shop{t: t, Dir: dir, mark: envDir + "=" + dir, more: make(chan struct{})}
	s.env = append([]string{s.mark, "TMPDIR=" + dir, "GORACE=atexit_sleep_ms=0"}, env...)
	s.Control = control.NewClient(controlPath(dir))
	self := "/proc/self/exe"
	if exe, err := os.Executable(); err == nil {
		self = exe
	}
	if os.Link(self, s.bin()) != nil {
		s.Deploy()
	}
	t.Cleanup(func() {
		for _, p := range s.Processes() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		s.wg.Wait()
		if t.Failed() {
			t.Log(strings.Join(s.log, "\n"))
		}
	})
	return s
}

// Start starts the service, for the first time, or when it has ended.
func (s *Shop) Start() {
	s.t.Helper()
	cmd := exec.Command(s.bin())
	if s.held != nil {
		cmd = exec.Command("/bin/sh", "-c", `export LISTEN_PID=$$; exec "$0"`, s.bin()) // see sd_listen_fds(3)
		cmd.ExtraFiles = []*os.File{s.held}
	}
	cmd.Env = append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		r.Close()
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	s.Anchor, s.exited = cmd.Process.Pid, exited
	s.wg.Go(func() { s.read(r) })
	s.wg.Go(func() { _ = cmd.Wait(); close(exited) })
}

// Exited is closed when the process that was started has ended.
func (s *Shop) Exited() <-chan struct{} { return s.exited }

func (s *Shop) bin() string { return filepath.Join(s.Dir, name) }

// Deploy puts another file with the same program in its place.
func (s *Shop) Deploy() {
	s.t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	tmp := s.bin() + ".new"
	if err := errors.Join(err, os.WriteFile(tmp, b, 0o755), os.Rename(tmp, s.bin())); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Shop) read(r io.ReadCloser) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		s.mu.Lock()
		if len(s.log) == maxLog {
			s.log = slices.Delete(s.log, 0, maxLog/2)
		}
		s.log = append(s.log, sc.Text())
		close(s.more)
		s.more = make(chan struct{})
		s.mu.Unlock()
	}
}

// await waits for a line of the log.
func (s *Shop) await(text string) string {
	s.t.Helper()
	limit := time.After(Patience)
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

// Process is one of the service's.
type Process struct {
	procs.Process
	Role string // "anchor", "parent", "worker web/1" and so on
}

// Processes are all that live, or have not been reaped, whoever's children they are.
func (s *Shop) Processes() (list []Process) {
	all, err := procs.List()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range all {
		env, err := procs.Environ(p.PID)
		if p.PID == os.Getpid() || err != nil || !slices.Contains(env, s.mark) {
			continue
		}
		list = append(list, Process{p, role(p.PID)})
	}
	return list
}

func role(pid int) string {
	args, _ := procs.Args(pid)
	if len(args) == 0 {
		return "?"
	}
	return strings.TrimPrefix(args[0], name+": ")
}

// Who are the processes of a role that live, the oldest first.
func (s *Shop) Who(role string) (pids []int) {
	list := slices.DeleteFunc(s.Processes(), func(p Process) bool {
		return !strings.HasPrefix(p.Role, role) || p.State == 'Z' || p.State == 'X'
	})
	slices.SortFunc(list, func(a, b Process) int { return cmp.Compare(a.Start, b.Start) })
	for _, p := range list {
		pids = append(pids, p.PID)
	}
	return pids
}

// Descriptors counts those of a process.
func (s *Shop) Descriptors(pid int) int {
	s.t.Helper()
	fds, err := procs.FDs(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(fds)
}

// Ends waits until nothing is left of the service.
func (s *Shop) Ends() {
	s.t.Helper()
	limit := time.Now().Add(Patience)
	for len(s.Processes()) > 0 {
		if time.Now().After(limit) {
			s.t.Fatalf("it does not end: %v", s.Processes())
		}
		time.Sleep(10 * time.Millisecond)
	}
	<-s.exited
}
