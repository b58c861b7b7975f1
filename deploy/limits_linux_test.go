package deploy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// group makes a control group for a test, CONTROLLER/NAME, with these settings.
func group(t *testing.T, controller string, settings map[string]string) string {
	t.Helper()
	rooted(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Join(groupRoot, controller), &fs); err != nil || fs.Type != unix.CGROUP_SUPER_MAGIC {
		t.Skipf("the %s controller of cgroup v1 is not mounted in %s", controller, groupRoot)
	}
	name := filepath.Join(controller, fmt.Sprintf("handover-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	dir := filepath.Join(groupRoot, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// It can go when its last process has been reaped.
	t.Cleanup(func() { until(t, "the end of "+dir, func() bool { return os.Remove(dir) == nil }) })
	for file, value := range settings {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// TestCPULimit: there are as many workers as the container has CPUs, and they share those
// out.
func TestCPULimit(t *testing.T) {
	t.Parallel()
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU can't be told from a limit of one")
	}
	d := readDockerfile(t)
	for quota, workers := range map[int]int{-1: runtime.NumCPU(), 100_000: 1, 150_000: 1} {
		t.Run(strconv.Itoa(quota), func(t *testing.T) {
			t.Parallel()
			g := group(t, "cpu", map[string]string{"cpu.cfs_quota_us": strconv.Itoa(quota)})
			c := d.start(t, nil, func(b *box) { b.Groups = []string{g} })
			c.serves()
			list := c.status().Groups[0].Workers
			if len(list) != workers {
				t.Errorf("%d workers, not %d", len(list), workers)
			}
			for _, w := range list {
				if env, err := procs.Environ(c.outside(w.Pid)); err != nil || !slices.Contains(env, "GOMAXPROCS=1") {
					t.Errorf("worker %d has not one CPU: %v, %q", w.Pid, err, env)
				}
			}
			c.signal(t, syscall.SIGTERM)
			c.exits(t, 0)
		})
	}
}

// TestMemoryLimit: the kernel kills a worker that takes too much, which is told apart
// from others that die; it is replaced, and the service goes on.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	g := group(t, "memory", map[string]string{"memory.limit_in_bytes": "128M"})
	c := d.start(t, append(d.cmd, "--workers", "2"), func(b *box) { b.Groups = []string{g} })
	c.serves()
	const starved, killed = "signal: killed by SIGKILL for want of memory", "signal: killed by SIGKILL"
	for i, grow := range []bool{true, false, true} {
		want := starved
		if grow {
			if out, err := c.get("/grow?mb=512"); err == nil {
				t.Errorf("it grows beyond the limit: %s", out)
			}
		} else {
			want = killed
			if err := syscall.Kill(c.outside(c.status().Groups[0].Workers[0].Pid), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "both workers serve again", func() bool {
			g := c.status().Groups[0]
			n := 0
			for _, w := range g.Workers {
				if w.State == "serving" {
					n++
				}
			}
			return g.Restarts == i+1 && n == 2 && len(g.Workers) == 2
		})
		deaths := c.status().Groups[0].Deaths
		if len(deaths) != i+1 {
			t.Fatalf("%d deaths, not %d", len(deaths), i+1)
		}
		last := deaths[i].Cause + ": " + deaths[i].Reason
		if !strings.HasPrefix(last, want) || !grow && last != want {
			t.Errorf("%s, not %s", last, want)
		}
		if out, err := c.get("/"); err != nil || !strings.Contains(out, "generation=") {
			t.Errorf("after death %d: %s, %v", i+1, out, err)
		}
	}
	// It is still known after an upgrade, and told to people.
	if out, code := c.handover("upgrade", "--wait", "serve"); code != 0 {
		t.Errorf("upgrade: exit code %d\n%s", code, out)
	}
	out, _ := c.handover("status")
	if strings.Count(out, " failed, pid ") != 3 || strings.Count(out, starved) != 2 {
		t.Errorf("%s", out)
	}
	contains(t, c.log, `reason="killed by SIGKILL for want of memory`)
	c.signal(t, syscall.SIGTERM)
	c.exits(t, 0)
}

// outside is the pid that a process of the container has outside of it (NSpid in
// /proc/pid/status, proc(5)).
func (c *container) outside(pid int) int {
	c.t.Helper()
	all, err := procs.Descendants(c.cmd.Process.Pid)
	for _, p := range all {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		if strings.HasSuffix(match(string(b), `NSpid:(.*)`), fmt.Sprintf("\t%d", pid)) {
			return p.PID
		}
	}
	c.t.Fatalf("no process %d in the container: %v, %v", pid, all, err)
	return 0
}
