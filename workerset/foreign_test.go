//go:build linux

package workerset_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// newForeign makes a set of programs that know nothing of this module.
func newForeign(t *testing.T, steps string, change func(*workerset.Config)) *harness {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return newSet(t, func(c *workerset.Config) {
		c.Program.Path = self
		c.Groups[0].Env = []string{foreign(steps)}
		if change != nil {
			change(c)
		}
	})
}

// printed waits until the set's output contains a text.
func (h *harness) printed(text string) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(h.out)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%q is not in the output:\n%s", text, b)
		}
		<-time.After(time.Millisecond)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ready")
	for _, c := range []struct {
		name, ready, steps string
		serves             bool
		says               string // of one that does not
	}{
		{"notify", "notify", "notify STATUS=loading;notify READY=1\\nSTATUS=fine", true, ""},
		{"notify, from a child", "notify", "notify READY=1", true, ""},
		{"does not notify", "notify", "print hello", false, "not ready after 6s; its last output:\nhello"},
		{"channel", "channel", `write "ready"`, true, ""},
		{"does not say so on the channel", "channel", "notify READY=1", false, "not ready after"},
		{"by default, notify", "", "notify READY=1", true, ""},
		{"by default, alive", "", "close", true, ""},
		{"by default, exits too early", "", "error no database;exit 4", false, "exit status 4; its last output:\nno database"},
		{"alive for a time", "50ms", "print hello", true, ""},
		{"http", "http:/ready", "serve", true, ""},
		{"http, never", "http:/ready", "serve " + file, false, "not ready after 6s: /ready answers 503 Service Unavailable"},
		{"http, nobody accepts", "http:/ready", "print hello", false, "not ready after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newForeign(t, c.steps, func(cfg *workerset.Config) {
				var err error
				if cfg.Groups[0].Ready, err = workerset.ParseReadiness(c.ready); err != nil {
					t.Fatal(err)
				}
				cfg.Groups[0].StartTimeout = 6 * time.Second
				if c.serves {
					cfg.Groups[0].StartTimeout = patience
				}
			}).start()
			if c.serves {
				h.state(1, "serving")
			} else if w := h.state(1, "exited"); !strings.Contains(w.Reason, c.says) {
				t.Errorf("%s: %q, not %q", w.Cause, w.Reason, c.says)
			}
		})
	}
}

// TestReadyByItself: the answer of another worker that accepts from the same socket
// does not make one ready.
func TestReadyByItself(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ready")
	h := newForeign(t, "", func(c *workerset.Config) {
		c.Groups[0].Count = 2
		c.Groups[0].Ready = workerset.Readiness{By: workerset.ReadyHTTP, Path: "/ready"}
		// The first one answers well, the second not until there is a file.
		c.Groups[0].Env = []string{foreign("serve")}
	}).start()
	h.state(1, "serving")
	h.state(2, "serving")
	h.stop()

	h = newSet(t, func(c *workerset.Config) {
		c.Groups[0].Ready = workerset.Readiness{By: workerset.ReadyHTTP, Path: "/ready"}
		c.Groups[0].Env = []string{do("serve"), "TEST_READY_FILE=" + file}
		c.Trial = true
	}).start()
	// A library worker is asked on a connection of its own, before it accepts.
	h.state(1, "starting")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.state(1, "standby")
}

// TestProgramDrains: a program is asked by its signal, once, and what it does then is
// its own affair.
func TestProgramDrains(t *testing.T) {
	t.Parallel()
	h := newForeign(t, "catch;notify READY=1;term;notify STOPPING=1;print bye;exit 0", func(c *workerset.Config) {
		c.Groups[0].DrainSignal = syscall.SIGUSR2
	}).serve()
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if w := h.state(1, "exited"); w.Cause != "" || w.Exit != "exit status 0" {
		t.Errorf("%+v", w)
	}
	h.printed("web/1 | got user defined signal 2\nweb/1 | bye\n")
	if st := h.status(); st.Failures != 0 || st.Restarts != 0 {
		t.Errorf("%+v", st)
	}
	if r := h.stop(); r.Exited != 1 || r.Terminated+r.Killed != 0 {
		t.Errorf("%+v", r)
	}
}

// TestProgramIsTold by somebody else to end: it is replaced at once, and it is no
// failure.
func TestProgramIsTold(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "go")
	for name, steps := range map[string]string{
		"and says so":    "catch;notify READY=1;term;notify STOPPING=1;wait " + file + ";exit 0",
		"and just dies":  "notify READY=1",
		"as shells exit": "catch;notify READY=1;term;exit 143",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newForeign(t, steps, nil).serve()
			w := h.state(1, "serving")
			if err := syscall.Kill(w.Pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			h.state(2, "serving") // also before the first one is gone
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if w := h.state(1, "exited"); w.Cause != "retire" {
				t.Errorf("%+v", w)
			}
			if st := h.status(); st.Failures != 0 || st.Restarts != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestProgramDies: of a program that ends by itself the cause is told.
func TestProgramDies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ steps, cause, reason string }{
		"exits":            {"notify READY=1;notify ERRNO=5;exit 3", "exit", "exit status 3, errno 5"},
		"without a reason": {"notify READY=1;exit 0", "exit", "exit status 0"},
		"is triggered":     {"notify READY=1;notify WATCHDOG=trigger", "hung", "WATCHDOG=trigger"},
		"hangs":            {"notify READY=1;notify WATCHDOG=1", "hung", "silent for 100ms"},
		"hangs later":      {"notify READY=1;notify WATCHDOG_USEC=200000;notify WATCHDOG=1", "hung", "silent for 200ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newForeign(t, c.steps, func(cfg *workerset.Config) {
				cfg.Groups[0].HungAfter = 100 * time.Millisecond
				if name == "hangs later" {
					cfg.Groups[0].HungAfter = patience
				}
			}).start()
			h.state(2, "starting")
			if w := h.state(1, "exited"); w.Cause != c.cause || !strings.Contains(w.Reason, c.reason) {
				t.Errorf("%+v", w)
			}
		})
	}
}

// TestProgramEnvironment: what a program is given.
func TestProgramEnvironment(t *testing.T) {
	t.Parallel()
	mask := uint32(0o77)
	h := newForeign(t, "pid;env LISTEN_FDS;env LISTEN_FDNAMES;env HANDOVER_WORKER;env WATCHDOG_USEC;env NODE_CHANNEL_FD;env NOTIFY_SOCKET;env HANDOVER_TICKETS_FD;env HANDOVER_EXEC", func(c *workerset.Config) {
		c.Groups[0].NodeChannel = workerset.NodeYes
		c.Groups[0].Tickets = 2
		c.Program.Umask, c.Program.Limits = &mask, map[string]workerset.Limit{"core": {}}
	}).start()
	pid := h.state(1, "starting").Pid
	h.printed("web/1 | HANDOVER_EXEC \n")
	for _, line := range []string{
		fmt.Sprintf("pid %d %d %d\n", pid, pid, pid), "LISTEN_FDS 1\n", "LISTEN_FDNAMES http\n",
		"HANDOVER_WORKER web/1/1/1\n", "WATCHDOG_USEC 30000000\n", "NODE_CHANNEL_FD 4\n", "NOTIFY_SOCKET @handover/", "HANDOVER_TICKETS_FD \n",
	} {
		h.printed("web/1 | " + line)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil || !strings.Contains(string(b), "Umask:\t0077\n") {
		t.Errorf("%v\n%s", err, b)
	}
}

// TestProgramMistakesChannel for something else: it is closed, and the program goes
// on.
func TestProgramMistakesChannel(t *testing.T) {
	t.Parallel()
	h := newForeign(t, "write hello;notify READY=1", nil).serve()
	if h.state(1, "serving"); strings.Contains(h.story(), "exited") {
		t.Error(h.story())
	}
}

// TestProgramIsHandedOver: what another parent has to know of a program that can't
// say it.
func TestProgramIsHandedOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	noLeak(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := newForeign(t, "catch;notify READY=1\\nSTATUS=fine;part half a ;wait "+file+";print line;notify STATUS=better;term;print bye;exit 0", nil).serve()
	h.waitStatus(func(g workerset.GroupStatus) bool { return g.Workers[0].Status == "fine" })
	next := h.trial(func(c *workerset.Config) {
		c.Program.Path = self
		c.Groups[0].Env = []string{foreign("catch;notify READY=1;term;exit 0")}
	})
	e := h.yield()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := next.set.Commit(h.ctx(), e); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	var old workerset.Worker
	next.wait(0, func(c workerset.Change) bool {
		old = c.Worker
		return c.Worker.Generation == 1 && c.Worker.State == "exited"
	})
	if old.Status != "better" || old.Cause != "" {
		t.Errorf("%+v", old)
	}
	next.printed("web/1 | half a line\n")
	next.printed("web/1 | bye\n")
	next.stop()
}

// TestStalledReader: whoever reads what programs print may have stopped. Nothing is
// decided later because of it.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	h := newForeign(t, "notify READY=1;flood", func(c *workerset.Config) {
		c.Stdout = int(w.Fd())
		c.Groups[0].DrainTimeout = time.Millisecond
	}).serve()
	first := h.state(1, "serving")
	h.waitBlocked(first.Pid)
	if err := syscall.Kill(first.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.waitBlocked(h.state(2, "serving").Pid)
	e := h.yield()
	e.Close()
	h.set.Resume()
	h.status()
	h.stop()
}

// waitBlocked waits until a process waits for room in a pipe.
func (h *harness) waitBlocked(pid int) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		for _, task := range tasks(pid) {
			if b, _ := os.ReadFile(task + "/wchan"); strings.Contains(string(b), "pipe_write") {
				return
			}
			// Without wchan: in write(2), with a pipe.
			if b, _ := os.ReadFile(task + "/syscall"); strings.HasPrefix(string(b), "1 0x1 ") {
				return
			}
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("process %d does not wait", pid)
		}
		<-time.After(time.Millisecond)
	}
}

func tasks(pid int) []string {
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	return list
}
