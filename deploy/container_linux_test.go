package deploy_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// TestImage runs what deploy/Dockerfile makes, by its own words: built, started without
// any right on a root that is read-only, found healthy, upgraded, found unhealthy while
// it stops, and stopped.
func TestImage(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	if d.from != "scratch" || d.stop != "SIGTERM" {
		t.Errorf("%+v", d)
	}
	c := d.start(t, append(d.cmd, "--stop-delay", "3s"), nil)
	c.serves()
	if out, code := run(t, c.exec(d.health...)); code != 0 || out != "handover: ready\n" {
		t.Errorf("healthy: exit code %d, %s", code, out)
	}
	if st := c.status(); st.Anchor != 1 {
		t.Errorf("the anchor is %d, not PID 1", st.Anchor)
	}
	if out, code := c.handover("upgrade", "--wait", "serve"); code != 0 {
		t.Errorf("upgrade: exit code %d\n%s", code, out)
	}
	until(t, "an answer of generation 2", func() bool { out, _ := c.get("/"); return strings.Contains(out, "generation=2 ") })
	// What it has: no right, no way to get one, and nobody's files.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("not %q of\n%s", want, status)
		}
	}
	c.signal(t, unix.SignalNum(d.stop))
	contains(t, c.log, "serve on for a while")
	if out, code := run(t, c.exec(d.health...)); code != 1 || !strings.Contains(out, "not ready: the service stops") {
		t.Errorf("while it stops: exit code %d, %s", code, out)
	}
	if out, err := c.get("/"); !strings.Contains(out, " generation=") {
		t.Errorf("while it stops: %s, %v", out, err)
	}
	c.exits(t, 0)
}

// TestKubernetesArgs runs the container of the manifest: its arguments, and its probe.
func TestKubernetesArgs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := readDockerfile(t).start(t, list(t, string(b), `args: (\[.*\])`), nil)
	c.serves()
	probe := list(t, string(b), `command: (\[.*\])`)
	if out, code := run(t, c.exec(probe...)); code != 0 {
		t.Errorf("the probe: exit code %d, %s", code, out)
	}
	c.signal(t, syscall.SIGTERM)
	contains(t, c.log, "serve on for a while")
	if out, code := run(t, c.exec(probe...)); code != 1 {
		t.Errorf("the probe while it stops: exit code %d, %s", code, out)
	}
	c.signal(t, syscall.SIGINT)
	c.exits(t, 130)
}

// TestContainerUpgrades: the program is on a volume, where releases come and go.
func TestContainerUpgrades(t *testing.T) {
	volume := t.TempDir()
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(volume, "handover")
	replace(t, bin, handover(t), 0o755)
	d := readDockerfile(t)
	d.entrypoint = []string{"/volume/handover", "run"}
	c := d.start(t, append(d.cmd, "--workers", "2"), func(b *box) { b.Binds = map[string]string{"/volume": volume} })
	c.bin = bin
	c.serves()
	c.upgrades()
	c.hup(func() { c.signal(t, syscall.SIGHUP) })
	until(t, "everybody that was replaced is reaped", func() bool { return zombies(t, c) == 0 })
	c.signal(t, syscall.SIGTERM)
	c.exits(t, 0)
}

// zombies are the processes in a container that nobody has reaped.
func zombies(t *testing.T, c *container) (n int) {
	t.Helper()
	all, err := procs.Descendants(c.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.State == 'Z' {
			n++
		}
	}
	return n
}

// TestOrphans: what a program leaves behind is PID 1's to reap.
func TestOrphans(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	args := []string{"--name", "shop", "--listen", "tcp://:8080", "--ready", "1ms", "--workers", "2", "--", "/release", "orphans"}
	c := d.start(t, args, func(b *box) { b.Files["/release"] = badRelease(t) })
	contains(t, c.log, "web/1 | left")
	contains(t, c.log, "web/2 | left")
	until(t, "all orphans are reaped", func() bool { return zombies(t, c) == 0 })
	if st := c.status(); len(st.Groups) != 1 || st.Groups[0].Restarts != 0 {
		t.Errorf("%+v", st)
	}
	c.signal(t, syscall.SIGTERM)
	c.exits(t, 0)
}

// TestPID1Signals: the kernel drops signals that PID 1 does not catch. Those that mean
// something here are caught.
func TestPID1Signals(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		c := d.start(t, nil, nil)
		c.serves()
		before := c.status()
		for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT,
			syscall.SIGPIPE, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGIO} {
			c.signal(t, sig)
		}
		// They were on their way before this one, which says that it has arrived.
		c.hup(func() { c.signal(t, syscall.SIGUSR2) })
		if st := c.status(); st.Groups[0].Restarts != before.Groups[0].Restarts || st.Groups[0].Count != before.Groups[0].Count {
			t.Errorf("%+v, then %+v", before, st)
		}
		c.signal(t, syscall.SIGINT)
		c.exits(t, 0)
	})
	t.Run("one more", func(t *testing.T) {
		t.Parallel()
		c := d.start(t, append(d.cmd, "--workers", "1"), nil)
		c.serves()
		c.signal(t, syscall.SIGTTIN)
		until(t, "a second worker", func() bool { return len(c.status().Groups[0].Workers) == 2 })
		c.signal(t, syscall.SIGTERM)
		c.exits(t, 0)
	})
	t.Run("two stops", func(t *testing.T) {
		t.Parallel()
		c := d.start(t, append(d.cmd, "--stop-delay", "10m"), nil)
		c.serves()
		c.signal(t, syscall.SIGINT)
		contains(t, c.log, "serve on for a while")
		c.signal(t, syscall.SIGTERM)
		c.exits(t, 143)
	})
	// What tells Go to say what its goroutines do is for the parent, which it ends.
	t.Run("quit", func(t *testing.T) {
		t.Parallel()
		c := d.start(t, nil, nil)
		c.serves()
		c.signal(t, syscall.SIGQUIT)
		contains(t, c.log, "SIGQUIT: quit")
	})
}

// TestExitCodes: the container ends with the service's code.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a program that fails":  {[]string{"--listen", "tcp://:8080", "--", "/release"}, 1, "no database"},
		"no such program":       {[]string{"--listen", "tcp://:8080", "--", "/nowhere"}, 2, "/nowhere"},
		"a bad command line":    {[]string{"--workers", "none"}, 2, `--workers "none"`},
		"a bad configuration":   {[]string{"--listen", "tcp://nonsense"}, 2, "nonsense"},
		"a place for no socket": {[]string{"--listen", "tcp://:8080", "--control", "/s"}, 1, "read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box := d.start(t, c.args, func(b *box) { b.Files["/release"] = badRelease(t) })
			box.exits(t, c.code)
			contains(t, box.log, c.says)
		})
	}
}

// TestNoProc: without /proc no process can be started anew, and it says so.
func TestNoProc(t *testing.T) {
	t.Parallel()
	c := readDockerfile(t).start(t, nil, func(b *box) { b.NoProc = true })
	c.exits(t, 1)
	contains(t, c.log, "(is /proc mounted?)")
}

// TestPlaces: where the control socket is, in containers of all kinds.
func TestPlaces(t *testing.T) {
	t.Parallel()
	d := readDockerfile(t)
	for name, c := range map[string]struct {
		change func(*box)
		socket string // "": there is none
	}{
		"shared memory":       {func(b *box) {}, "/dev/shm/handover-65532/handover.sock"},
		"a temporary one":     {func(b *box) { b.Tmpfs = []string{"/tmp"} }, "/tmp/handover-65532/handover.sock"},
		"one that is said":    {func(b *box) { b.Tmpfs, b.Env = []string{"/run"}, append(b.Env, "RUNTIME_DIRECTORY=/run") }, "/run/handover.sock"},
		"a user's":            {func(b *box) { b.Tmpfs, b.Env = []string{"/run"}, append(b.Env, "XDG_RUNTIME_DIR=/run") }, "/run/handover/handover.sock"},
		"root, who can write": {func(b *box) { b.Write, b.UID, b.NoShm = true, 0, true; b.Tmpfs = []string{"/tmp"} }, "/tmp/handover-0/handover.sock"},
		"nothing":             {func(b *box) { b.NoShm = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box := d.start(t, nil, c.change)
			box.serves()
			out, code := run(t, box.exec(d.health...))
			if c.socket == "" {
				contains(t, box.log, "no control socket: 'handover status' and 'handover upgrade' find nobody")
				if code != 1 || !strings.Contains(out, "no service with a control socket runs") {
					t.Errorf("health: exit code %d, %s", code, out)
				}
			} else if st, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", box.cmd.Process.Pid, c.socket)); err != nil || code != 0 || st.Mode() != os.ModeSocket|0o600 {
				t.Errorf("%v; health: exit code %d, %s", err, code, out)
			}
			// It upgrades with and without.
			box.signal(t, syscall.SIGHUP)
			until(t, "generation 2", func() bool { out, _ := box.get("/"); return strings.Contains(out, "generation=2 ") })
			box.signal(t, syscall.SIGTERM)
			box.exits(t, 0)
		})
	}
}

// TestSupervisedContainer: who started the container wants to hear that it is ready
// (podman run --sdnotify container, systemd-nspawn --notify-ready). PID 1 has to stay all
// the same, and so it does if it is asked not to.
func TestSupervisedContainer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err == nil {
		defer ln.Close()
		err = ln.SetReadDeadline(time.Now().Add(patience))
	}
	if err == nil {
		err = os.Chmod(dir+"/notify", 0o777)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := readDockerfile(t)
	c := d.start(t, append(d.cmd, "--no-anchor"), func(b *box) {
		b.Binds = map[string]string{"/notify": dir}
		b.Env = append(b.Env, "NOTIFY_SOCKET=/notify/notify")
	})
	for text := make([]byte, 1<<10); ; {
		n, err := ln.Read(text)
		if err != nil {
			t.Fatalf("it is not told that the container is ready: %v", err)
		}
		if strings.Contains(string(text[:n])+"\n", "READY=1\n") {
			break
		}
	}
	c.serves()
	if st := c.status(); st.Anchor != 1 {
		t.Errorf("the anchor is %d, not PID 1", st.Anchor)
	}
	if out, code := c.handover("upgrade", "--wait", "serve"); code != 0 {
		t.Errorf("upgrade: exit code %d\n%s", code, out)
	}
	c.signal(t, syscall.SIGTERM)
	c.exits(t, 0)
}
