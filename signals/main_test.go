package signals

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// scenario is the variable that makes the test binary a program with signals.
const scenario = "SIGNALS_TEST_SCENARIO"

func TestMain(m *testing.M) {
	if name := os.Getenv(scenario); name != "" {
		scenarios[name]()
		os.Exit(0)
	}
	// What is ignored stays so in the programs that are started, and what is caught does
	// not: these are tests of nohup, and not under it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	// Starts os/signal's own goroutine here, outside every synctest bubble.
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	signal.Stop(c)
	goleak.VerifyTestMain(m)
}

// event tells the test what has happened in the program.
func event(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}

// program is a scenario that runs in a process of its own.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	events *bufio.Reader
	stderr *strings.Builder
}

// start runs a scenario. prefix, if any, is a command that executes its arguments.
func start(t *testing.T, name string, attr *syscall.SysProcAttr, stdin *os.File, prefix ...string) *program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(prefix, exe)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(time.Minute)) // a test that fails should not hang
	p := &program{t: t, cmd: exec.Command(argv[0], argv[1:]...), events: bufio.NewReader(r), stderr: new(strings.Builder)}
	p.cmd.Env = append(os.Environ(), scenario+"="+name)
	p.cmd.SysProcAttr = attr
	p.cmd.Stdout = w
	p.cmd.Stderr = p.stderr
	if stdin != nil {
		p.cmd.Stdin = stdin
	} else if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		r.Close()
		if t.Failed() {
			t.Logf("the program's stderr:\n%s", p.stderr)
		}
	})
	return p
}

func (p *program) kill(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("kill -%s: %v", name(sig), err)
	}
}

func (p *program) expect(want string) {
	p.t.Helper()
	got, err := p.events.ReadString('\n')
	if got = strings.TrimSuffix(got, "\n"); got != want || err != nil {
		p.t.Fatalf("event %q (%v), want %q", got, err, want)
	}
}

// status waits for the end of the program and returns what a shell would show.
func (p *program) status() int {
	p.t.Helper()
	if rest, err := io.ReadAll(p.events); err != nil || len(rest) > 0 {
		p.t.Fatalf("more events: %q, %v", rest, err)
	}
	p.cmd.Wait()
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
