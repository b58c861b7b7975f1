package sdtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/sdtest"
)

// TestMachine: it is systemd that is PID 1 there, it says what it has, and what a test
// has installed is gone after it.
func TestMachine(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		if out, code := m.Exec("cat", "/proc/1/comm"); out != "systemd\n" || code != 0 {
			t.Errorf("PID 1 is %q (%d)", out, code)
		}
		if out, code := m.Systemctl("is-system-running"); out != "running\n" || code != 0 {
			t.Errorf("%q (%d): %s", out, code, m.Must(t, "--failed"))
		}
		// What is the host's, too.
		for _, file := range []string{"/proc/sys/net/unix/max_dgram_qlen", "/sys/kernel/uevent_helper"} {
			if out, code := m.Exec("sh", "-c", "cat "+file+" >"+file); code == 0 || !strings.Contains(out, "Read-only") {
				t.Errorf("%s can be written to: %s", file, out)
			}
		}
		t.Run("installed", func(t *testing.T) {
			dir := m.TempDir(t)
			m.Install(t, map[string]string{"hello.service": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo hello; pwd >" + dir + "/at; exec sleep 0.01'\n" +
				"DynamicUser=yes\nReadWritePaths=" + dir + "\nPermissionsStartOnly=yes\nExecStartPre=+chmod 777 " + dir + "\n"})
			m.Must(t, "start", "hello.service")
			if got := m.Show(t, "hello.service", "Result"); got != "success" {
				t.Errorf("Result is %q", got)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "at")); string(b) != "/\n" {
				t.Errorf("the service wrote %q, %v", b, err)
			}
			if j := m.Journal("hello.service"); !strings.Contains(j, "hello\n") {
				t.Errorf("journal: %q", j)
			}
			if out, code := m.Systemctl("start", "missing.service"); code == 0 || !strings.Contains(out, "not found") {
				t.Errorf("a unit that is missing: %d, %q", code, out)
			}
		})
		if got := m.Show(t, "hello.service", "LoadState"); got != "not-found" {
			t.Errorf("after the test: %s", got)
		}
		if got := m.PID(1); got == 0 {
			t.Error("PID 1 is not on the host")
		}
	})
}

// TestEachFrom: versions that are too old are left out.
func TestEachFrom(t *testing.T) {
	newest, n := newestVersion(t), atomic.Int32{}
	sdtest.EachFrom(t, newest, func(_ *testing.T, m *sdtest.Machine) {
		if n.Add(1); m.Version != newest {
			t.Errorf("%d", m.Version)
		}
	})
	if n.Load() == 0 {
		t.Error("the newest did not run")
	}
}

// newestVersion skips the test where there is none.
func newestVersion(t *testing.T) int {
	t.Helper()
	var newest atomic.Int32
	sdtest.Each(t, func(_ *testing.T, m *sdtest.Machine) {
		for old := newest.Load(); old < int32(m.Version) && !newest.CompareAndSwap(old, int32(m.Version)); old = newest.Load() {
		}
	})
	if newest.Load() == 0 {
		t.Skip("the host's own systemd does not boot")
	}
	return int(newest.Load())
}

// leftBy is what machines of a process have on this host.
func leftBy(pid int) (left []string) {
	name := fmt.Sprintf("handover-sdtest.%d.", pid)
	for _, pattern := range []string{"/var/lib/", "/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"} {
		found, _ := filepath.Glob(pattern + name + "*")
		left = append(left, found...)
	}
	for _, file := range []string{"/proc/[0-9]*/cgroup", "/proc/self/mountinfo"} {
		files, _ := filepath.Glob(file)
		for _, f := range files {
			if b, _ := os.ReadFile(f); strings.Contains(string(b), name) {
				left = append(left, f)
			}
		}
	}
	return left
}

// envHold makes TestKilled one that boots, says so, and waits to be killed, or for the end
// of its input.
const envHold = "TEST_HOLD"

// TestKilled: nothing of a machine outlives the test that has booted it, and what is left
// of its cgroups and directory goes with the next boot.
func TestKilled(t *testing.T) {
	newestVersion(t) // or skip
	if os.Getenv(envHold) != "" {
		fmt.Println("booted")
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	hold := func() (*exec.Cmd, func()) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), sdtest.EnvRoots+"=", envHold+"=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		for b := make([]byte, 4096); ; {
			n, err := out.Read(b)
			if strings.Contains(string(b[:n]), "booted") {
				break
			}
			if err != nil {
				t.Fatalf("the holder does not boot: %q, %v", b[:n], err)
			}
		}
		return cmd, func() { in.Close() }
	}
	first, _ := hold()
	pid := first.Process.Pid
	if len(leftBy(pid)) < 3 {
		t.Fatalf("a machine that runs has only %v", leftBy(pid))
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for processes := true; processes; {
		processes = false
		for _, left := range leftBy(pid) {
			processes = processes || strings.HasPrefix(left, "/proc/")
		}
		if processes && time.Now().After(deadline) {
			t.Fatalf("it is dead, and has %v", leftBy(pid))
		}
		<-time.After(5 * time.Millisecond)
	}
	second, end := hold()
	if left := leftBy(pid); len(left) > 0 {
		t.Errorf("the next one boots, and there are still %v", left)
	}
	end()
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
	if left := leftBy(second.Process.Pid); len(left) > 0 {
		t.Errorf("after an orderly end: %v", left)
	}
}
