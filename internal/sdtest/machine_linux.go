package sdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// commandTimeout bounds what is run in a machine.
const commandTimeout = 60 * time.Second

// Machine is a systemd that runs. Its methods may be called from any goroutine.
type Machine struct {
	// Version is systemd's, such as 252.
	Version int

	mu        sync.Mutex
	installed map[string]time.Time // when a unit was

	pid    int    // of PID 1, as the host knows it
	base   string // directory on the host
	cgroup string
	ended  chan struct{} // closed when all its processes are gone
}

// shared is a directory that is the same in the machine.
func (m *Machine) shared() string { return filepath.Join(m.base, "shared") }

// TempDir makes a directory that has the same path on the host and in the machine, and
// that all users can read. It is removed with the test.
func (m *Machine) TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(m.shared(), "t")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Command is a command that runs in the machine, as root and in "/", but as this
// process's child and outside the machine's cgroup.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--all", "--", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second // nsenter's child may outlive it
	return cmd
}

// Exec runs a command in the machine, for a minute at most, and returns what it has
// printed and its exit code, which is -1 if it had none.
func (m *Machine) Exec(name string, args ...string) (output string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	out, err := m.Command(ctx, name, args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit):
		return string(out), exit.ExitCode()
	default:
		return fmt.Sprintf("%s%s: %v", out, name, err), -1
	}
}

// Systemctl runs systemctl in the machine: see Exec.
func (m *Machine) Systemctl(args ...string) (output string, code int) {
	return m.Exec("systemctl", append([]string{"--no-pager", "--no-ask-password"}, args...)...)
}

// Must is Systemctl for what has to succeed.
func (m *Machine) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, code := m.Systemctl(args...)
	if code != 0 {
		t.Fatalf("systemctl %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// Show returns a unit's property.
func (m *Machine) Show(t testing.TB, unit, property string) string {
	t.Helper()
	return strings.TrimSuffix(m.Must(t, "show", "--value", "--property", property, unit), "\n")
}

// PID is a process of the machine as the host knows it: what systemd calls its MainPID
// is of another namespace. It is 0 if there is no such process.
func (m *Machine) PID(inside int) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !m.has(pid) {
			continue
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, _ := strings.Cut(string(status), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		if ids := strings.Fields(line); len(ids) > 0 && ids[len(ids)-1] == strconv.Itoa(inside) {
			return pid
		}
	}
	return 0
}

// has reports whether a process of the host is in the machine's PID namespace.
func (m *Machine) has(pid int) bool {
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.pid))
	its, ierr := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return err == nil && ierr == nil && ours == its
}

// Install writes unit files, by their names, and makes systemd read them. With the test
// they are stopped and removed; if it has failed, what systemd knows of them is logged.
func (m *Machine) Install(t testing.TB, units map[string]string) {
	t.Helper()
	var names []string
	t.Cleanup(func() { m.uninstall(t, names) })
	for name, text := range units {
		names = append(names, name)
		m.mu.Lock()
		m.installed[name] = time.Now()
		m.mu.Unlock()
		if err := os.WriteFile(m.unitFile(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.Must(t, "daemon-reload")
}

func (m *Machine) unitFile(name string) string {
	return fmt.Sprintf("/proc/%d/root/run/systemd/system/%s", m.pid, name)
}

func (m *Machine) uninstall(t testing.TB, names []string) {
	if t.Failed() {
		out, _ := m.Systemctl(append([]string{"status", "--full", "--lines=0"}, names...)...)
		t.Logf("%s", out)
		for _, name := range names {
			t.Logf("journal of %s:\n%s", name, m.Journal(name))
		}
	}
	out, code := m.Systemctl(append([]string{"stop"}, names...)...)
	if code != 0 {
		t.Errorf("stop %s: exit code %d: %s", strings.Join(names, " "), code, out)
	}
	for _, name := range names {
		if err := os.Remove(m.unitFile(name)); err != nil {
			t.Error(err)
		}
	}
	_, _ = m.Systemctl(append([]string{"reset-failed"}, names...)...) // those that have
	m.Must(t, "daemon-reload")
}

// Journal returns the lines of a unit's journal since it was installed, those of systemd
// about it included.
func (m *Machine) Journal(unit string) string {
	m.mu.Lock()
	since := m.installed[unit]
	m.mu.Unlock()
	_, _ = m.Exec("journalctl", "--sync")
	out, _ := m.Exec("journalctl", "--no-pager", "--output=cat", "--unit="+unit, fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000))
	return out
}
