// Package deploy_test runs the service as others do: as PID 1 of a container, from the
// files that are here, and under supervisors.
package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == boxName {
		boxMain()
	}
	if err := procs.Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := procs.ReapAll(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "processes left behind:", err)
		code = max(code, 1)
	}
	for _, dir := range built {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// probation makes the anchor become one of each new program soon.
const probation = "HANDOVER_PROBATION=100ms"

// patience is how long a test waits for what should happen soon.
const patience = 30 * time.Second

var (
	mu    sync.Mutex
	built = map[string]string{} // directories, by command
)

// build runs a command that makes the file out, once, and returns where that is.
func build(t *testing.T, command, out string) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	dir := built[command]
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "deploy"); err != nil {
			t.Fatal(err)
		}
		built[command] = dir
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(command, "-o "+out, "-o "+filepath.Join(dir, filepath.Base(out))))
		cmd.Dir = ".."                             // the build's context
		cmd.Env = append(os.Environ(), "GOFLAGS=") // which may ask for what needs cgo
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, b)
		}
	}
	return filepath.Join(dir, filepath.Base(out))
}

// handover is the command, as the image has it.
func handover(t *testing.T) string { return readDockerfile(t).build(t) }

// badRelease is a program that ends, with a reason.
func badRelease(t *testing.T) string {
	return build(t, "CGO_ENABLED=0 go build -o /release ./deploy/testdata/release", "/release")
}

// replace puts a file in another's place, as a deployment does.
func replace(t *testing.T, place, with string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(with)
	// A process that is forked while the file is open for writing has it open, too, until it
	// executes its own, and nobody could execute it (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err == nil {
		err = errors.Join(os.WriteFile(place+".new", b, mode), os.Chmod(place+".new", mode), os.Rename(place+".new", place))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// freeAddr is an address on which nothing listens now, and that no client is given as
// its own: ip(7), ip_local_port_range.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))); err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// until looks again and again until ok: nobody tells what files say.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// contains waits for a text in a file, and returns all of it.
func contains(t *testing.T, file, text string) string {
	t.Helper()
	var b []byte
	until(t, fmt.Sprintf("%q in %s", text, file), func() bool {
		b, _ = os.ReadFile(file)
		return strings.Contains(string(b), text)
	})
	return string(b)
}

// site is a service that runs somewhere, as its operator sees it.
type site struct {
	t    *testing.T
	addr string
	log  string // the file to which it prints

	replaced bool   // its binary, since the last upgrade
	bin      string // what is replaced by a new release
	// ask is the command as one types it there: handover ARGS.
	ask func(args ...string) *exec.Cmd
}

// handover asks the service.
func (s *site) handover(args ...string) (out string, code int) {
	s.t.Helper()
	return run(s.t, s.ask(args...))
}

// run runs a command to its end, and returns all that it says.
func run(t *testing.T, cmd *exec.Cmd) (out string, code int) {
	t.Helper()
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// state is a part of 'handover status --json'.
type state struct {
	Generation, Pid, Anchor int
	Groups                  []struct {
		Count, Restarts int
		Workers         []struct {
			Pid   int
			State string
		}
		Deaths []struct{ Cause, Reason string }
	}
}

func (s *site) status() (st state) {
	s.t.Helper()
	out, code := s.handover("status", "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != 0 {
		s.t.Fatalf("status: exit code %d, %v\n%s", code, err, out)
	}
	return st
}

// get asks for a page, and returns the answer.
func (s *site) get(path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + s.addr + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b := make([]byte, 1<<10)
	n, _ := resp.Body.Read(b)
	return string(b[:n]), nil
}

// serves waits for the first generation.
func (s *site) serves() {
	s.t.Helper()
	contains(s.t, s.log, `msg="generation serves"`)
}

// load starts strict clients of every kind that HTTP/1 has.
func (s *site) load() *load.Load {
	s.t.Helper()
	l, err := load.Start(s.t.Context(), load.Config{
		Addr: s.addr, Rate: 40, WaitReady: patience, SlowMS: 100, StreamMS: 100, UploadMS: 100,
		Clients: map[load.Kind]int{load.New: 2, load.KeepAlive: 2, load.Slow: 1, load.Upload: 1, load.Stream: 1},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// check ends a load of which nothing may have failed, or been closed.
func check(t *testing.T, l *load.Load) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil { // also after the last upgrade
		t.Error(err)
	}
	r := l.Stop()
	if err := r.Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	t.Logf("%d requests, %d failed, %d connections closed, %d processes answered", r.Started, r.Failures.Total(), r.ClosedIdle, len(r.Workers))
}

// upgrades does twenty, of which a few lead nowhere, under load. What is told of each has
// to be true, and the pid to send signals to stays what it is.
func (s *site) upgrades() {
	s.t.Helper()
	good := handover(s.t)
	bad := []struct {
		from string
		mode os.FileMode
		says string
	}{
		{badRelease(s.t), 0o755, "exit status 3"},
		{good, 0o644, "permission denied"},
		{"Dockerfile", 0o755, "exec format error"},
	}
	st := s.status()
	anchor, generation := st.Anchor, st.Generation
	if anchor == 0 {
		s.t.Fatal("no anchor")
	}
	l := s.load()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	for i := range 20 {
		want, says := 0, "serves\n"
		if i%4 == 1 {
			b := bad[i/4%len(bad)]
			replace(s.t, s.bin, b.from, b.mode)
			want, says = 1, b.says
		} else {
			replace(s.t, s.bin, good, 0o755)
			generation++
		}
		out, code := s.handover("upgrade", "--wait", "serve")
		if code != want || !strings.Contains(out, says) {
			s.t.Errorf("upgrade %d: exit code %d, not %d with %q\n%s", i, code, want, says, out)
		}
		if st := s.status(); st.Generation != generation || st.Anchor != anchor {
			s.t.Fatalf("after upgrade %d: generation %d, not %d; anchor %d, not %d", i, st.Generation, generation, st.Anchor, anchor)
		}
		tag := fmt.Sprintf("generation=%d ", generation)
		if err := l.WaitWorker(ctx, func(w string) bool { return strings.Contains(w, tag) }); err != nil {
			s.t.Fatalf("no answer of generation %d: %v", generation, err)
		}
	}
	check(s.t, l)
	s.settles()
	replace(s.t, s.bin, good, 0o755)
	s.replaced = true
}

// settles waits until the anchor is one of the parent's program: what reaches it in the
// moment of its exec can be lost, or end it (docs/decisions.md).
func (s *site) settles() {
	s.t.Helper()
	st := s.status()
	contains(s.t, s.log, fmt.Sprintf(" pid=%d parent=%d\n", st.Anchor, st.Pid)) // "the anchor is one of …"
}

// hup waits until the signal that send sends has led to another generation.
func (s *site) hup(send func()) {
	s.t.Helper()
	before := s.status()
	send()
	until(s.t, "an upgrade by HUP", func() bool { return s.status().Generation == before.Generation+1 })
	if st := s.status(); st.Anchor != before.Anchor {
		s.t.Errorf("anchor %d, then %d", before.Anchor, st.Anchor)
	}
	if s.replaced {
		s.settles()
	}
}

// needs skips a test where a program is missing.
func needs(t *testing.T, program, debian string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (Debian: apt-get install %s)", program, debian)
	}
}

// rooted skips a test that makes namespaces.
func rooted(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make a container's namespaces")
	}
}

// stat is a field of /proc/pid/stat after the name, counted from the state (proc(5)).
func stat(pid, field int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	rest := string(b[max(0, strings.LastIndexByte(string(b), ')')):])
	if f := strings.Fields(rest); len(f) > field+1 {
		return f[field+1]
	}
	return ""
}

func match(text, re string) string {
	if m := regexp.MustCompile(re).FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// started is a process of a test, which is ended with it.
type started struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// begin starts a command whose output goes to a file.
func begin(t *testing.T, cmd *exec.Cmd, log string) *started {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &started{cmd, make(chan struct{})}
	go func() { defer close(p.exited); _ = cmd.Wait() }()
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			all, _ := procs.Descendants(cmd.Process.Pid)
			_ = cmd.Process.Kill()
			for _, d := range all {
				_ = syscall.Kill(d.PID, syscall.SIGKILL)
			}
			<-p.exited
		}
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("%s:\n%s", log, b[max(0, len(b)-8000):])
		}
	})
	return p
}

// exits waits for the end, and checks the exit code; that of a signal is -1.
func (p *started) exits(t *testing.T, want int) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("exit code %d, not %d: %v", got, want, p.cmd.ProcessState)
	}
}

func (p *started) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%v: %v", sig, err)
	}
}
