// Package sectest is what docs/security.md says of a whole service: what its processes have,
// and what somebody can do who is the user of one of its workers.
package sectest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/demo"
)

// The test binary is the service, too, by this name, and an intruder by the other.
const (
	serviceName  = "shop"
	intruderName = "intruder"
)

// envDir is where the service has its files, and what marks its processes.
const envDir = "SECTEST_DIR"

const patience = 30 * time.Second

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case serviceName:
		serviceMain()
		return
	case intruderName:
		intrude(os.Args[1:])
		return
	}
	if err := procs.Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := procs.ReapAll(ctx); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "processes left behind:", err)
		code = 1
	}
	os.Exit(code)
}

func serviceMain() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	dir := os.Getenv(envDir)
	other := ""
	if os.Geteuid() == 0 {
		other = "65534:65534"
	}
	handover.Main(handover.Config{
		Name: serviceName, Listen: []string{"http=tcp://127.0.0.1:0", "admin=tcp://127.0.0.1:0"},
		Control: filepath.Join(dir, "control"), PIDFile: filepath.Join(dir, "pid"), Logger: log,
		Groups: []handover.Group{
			{Name: "web", Sockets: []string{"http"}, Workers: 1, App: demo.App, User: other},
			{Name: "admin", Sockets: []string{"admin"}, Workers: 1, App: demo.App, Env: []string{"ADMIN_PASSWORD=secret"}},
		},
	}, nil)
}

// service is a running one.
type service struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	control *control.Client
	status  control.Status
	left    string // what its starter has left open
}

// start starts one whose starter has left a pipe open.
func start(t *testing.T) *service {
	t.Helper()
	dir, err := os.MkdirTemp("", "sec") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, dir: dir, control: control.NewClient(filepath.Join(dir, "control"))}
	bin := filepath.Join(dir, serviceName)
	b, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(bin, b, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil { // what was left open for the test
		t.Fatal(err)
	}
	left, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.left, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", left.Fd())); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(bin)
	s.cmd.Env = append(os.Environ(), envDir+"="+dir, "SERVICE_TOKEN=everybody's", "GORACE=atexit_sleep_ms=0")
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.ExtraFiles = outw, outw, []*os.File{left}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outw.Close()
	var said []string
	var reading sync.WaitGroup
	reading.Go(func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			said = append(said, sc.Text())
		}
	})
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
		if err := s.cmd.Wait(); err != nil {
			t.Error(err)
		}
		timer.Stop()
		reading.Wait()
		for _, f := range []*os.File{left, w, out} {
			f.Close()
		}
		os.RemoveAll(dir)
		if t.Failed() {
			t.Log(strings.Join(said, "\n"))
		}
	})
	for limit := time.Now().Add(patience); !s.serves(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it does not serve: %+v", s.status)
		}
	}
	return s
}

// serves looks, and reports whether all workers serve.
func (s *service) serves() bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	st, _, err := s.control.Status(ctx)
	if err != nil {
		return false
	}
	s.status = st
	for _, g := range st.Groups {
		if len(g.Workers) != g.Count || g.Workers[0].State != "serving" {
			return false
		}
	}
	return true
}

// worker is the pid of the one of a group.
func (s *service) worker(group string) int {
	for _, g := range s.status.Groups {
		if g.Name == group {
			return g.Workers[0].Pid
		}
	}
	s.t.Fatalf("no group %s: %+v", group, s.status)
	return 0
}
