package faulttest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/workerset"
)

// TestPIDReused: a worker that another parent has started dies while its parent can't see it, and
// a stranger gets its pid. The stranger is neither taken for the worker nor sent a signal, when
// the drain's time is up, or by who is asked to end the worker.
func TestPIDReused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has namespaces of pids")
	}
	// With pids of its own, so that it is known which is the next one: the service is PID 1.
	s := prepare(t, row{start: func(s *service) { s.by("unshare", "--pid", "--mount-proc", "--fork", "--kill-child") }})
	s.cmd.Args = append(s.cmd.Args, "--drain-timeout", "1s")
	s.launch()
	if !s.comesUp() {
		t.Fatal("it does not serve")
	}
	go func() { // what keeps a worker
		if resp, err := http.Get("http://" + s.addr + "/slow?ms=600000"); err == nil {
			resp.Body.Close()
		}
	}()
	s.until(func() string {
		if n := s.busy(); n != 1 {
			return fmt.Sprintf("%d requests are in flight", n)
		}
		return ""
	})
	if out, code := s.handover("upgrade", "--wait", "serve"); code != 0 {
		t.Fatalf("upgrade: %s", out)
	}
	old, ok := s.draining()
	if !ok {
		t.Fatal("no worker drains")
	}
	parent := s.parent()
	s.inside(fmt.Sprintf("kill -STOP %d; kill -KILL %d; while kill -0 %[2]d 2>/dev/null; do :; done", parent, old.Pid))
	s.stranger(old.Pid)
	s.until(func() string {
		if time.Now().Before(old.Deadline) {
			return "the drain's time is not up"
		}
		return ""
	})
	s.inside(fmt.Sprintf("kill -CONT %d", parent))
	s.until(func() string {
		if w, ok := s.draining(); ok {
			return fmt.Sprintf("worker %d is not dead", w.Pid)
		}
		return ""
	})
	if out, code := s.handover("restart"); code != 0 {
		t.Errorf("restart: %s", out)
	}
	if got := s.inside(fmt.Sprintf("cat /proc/%d/comm", old.Pid)); got != "sleep\n" {
		t.Errorf("pid %d is %q", old.Pid, got)
	}
	s.inside("kill -TERM 1") // with which all end that are in there
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("after the stop: %v", err)
	}
}

const pidsName = "pids"

func init() { programs[pidsName] = pidsMain }

// pidsMain, as PID 1, follows a process that somebody else reaps, whose pid then is a stranger's.
func pidsMain() {
	err := followReused()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func followReused() error {
	const next = "/proc/sys/kernel/ns_last_pid"
	first := exec.Command("sleep", "3600")
	if err := first.Start(); err != nil {
		return err
	}
	pid := first.Process.Pid
	followed, err := launch.Follow(pid)
	if err != nil {
		return err
	}
	defer followed.Close()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	_ = first.Process.Kill()
	_ = first.Wait()
	stranger := exec.Command("sleep", "3600")
	for tries := 0; stranger.Process == nil || stranger.Process.Pid != pid; tries++ {
		if tries == 100 {
			return fmt.Errorf("pid %d can't be had", pid)
		}
		if stranger.Process != nil { // a thread was quicker
			_ = stranger.Process.Kill()
			_ = stranger.Wait()
		}
		stranger = exec.Command("sleep", "3600")
		if err := errors.Join(os.WriteFile(next, fmt.Append(nil, pid-1), 0), stranger.Start()); err != nil {
			return err
		}
	}
	if err := followed.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("a signal: %v", err)
	}
	adopted, err := launch.Adopt(pid, os.NewFile(uintptr(fd), "pidfd")) // as from a predecessor
	if err != nil {
		return err
	}
	defer adopted.Close()
	if err := adopted.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("a signal to what was taken over: %v", err)
	}
	adopted.Wait()
	if st := followed.Wait(); st.Known && st.Signal != int(syscall.SIGKILL) {
		return fmt.Errorf("it has ended by %v", st)
	}
	if err := stranger.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := stranger.Wait(); stranger.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		return fmt.Errorf("the stranger has ended otherwise: %v", err)
	}
	return nil
}

// TestPIDFollowed: who follows a process signals no other one, whatever its pid is.
func TestPIDFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has namespaces of pids")
	}
	out, err := exec.Command("unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "bash", "-c", "exec -a "+pidsName+" "+self).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// busy is how many requests the workers have, as they last said.
func (s *service) busy() (n int) {
	s.t.Helper()
	for _, w := range s.status().Groups[0].Workers {
		n += w.Active - w.Idle
	}
	return n
}

// draining is a worker that drains.
func (s *service) draining() (workerset.Worker, bool) {
	s.t.Helper()
	for _, w := range s.status().Groups[0].Workers {
		if w.Stale {
			return w, true
		}
	}
	return workerset.Worker{}, false
}

// within is a shell in the namespaces of the service.
func (s *service) within(script string) *exec.Cmd {
	s.t.Helper()
	all, err := procs.Descendants(s.cmd.Process.Pid)
	if err != nil || len(all) == 0 {
		s.t.Fatal(err)
	}
	return exec.Command("nsenter", fmt.Sprintf("--target=%d", all[0].PID), "--pid", "--mount", "sh", "-c", script)
}

func (s *service) inside(script string) string {
	s.t.Helper()
	out, err := s.within(script).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// stranger has a process that is none of the service's get a pid that nobody has. It would die of
// any signal.
func (s *service) stranger(pid int) {
	s.t.Helper()
	for range 100 {
		cmd := s.within(fmt.Sprintf(`echo %d >/proc/sys/kernel/ns_last_pid; sleep 3600 & echo $!; wait`, pid-1))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		if strings.TrimSpace(line) == fmt.Sprint(pid) {
			s.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			return
		}
		s.inside("kill " + strings.TrimSpace(line)) // somebody else was quicker
		_ = cmd.Wait()
	}
	s.t.Fatalf("pid %d can't be had", pid)
}
