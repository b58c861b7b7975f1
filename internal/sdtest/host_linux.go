package sdtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// baseDir is where machines' directories are. Not in a temporary one: services with
	// PrivateTmp= would not see it.
	baseDir = "/var/lib"
	prefix  = "handover-sdtest." // of all that is made on the host
)

// errCannot is why no systemd can be booted here.
var errCannot = errors.New("systemd can't be booted here")

// host says where cgroups can be made, or why there can be no machine.
func host() (cgroups string, err error) {
	cannot := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("%w: %w", errCannot, fmt.Errorf(format, args...))
	}
	if os.Geteuid() != 0 {
		return cannot("it takes root")
	}
	for _, tool := range []string{"unshare", "nsenter", "setpriv", "mount", "pivot_root"} {
		if _, err := exec.LookPath(tool); err != nil {
			return cannot("%s is missing (Debian: apt-get install util-linux)", tool)
		}
	}
	if cgroups, err = cgroup2(); err != nil {
		return cannot("%w", err)
	}
	// What can be made there is seen when it is tried; a container has it read-only.
	for _, dir := range []string{cgroups, baseDir} {
		if err := unix.Access(dir, unix.W_OK); err != nil {
			return cannot("%s: %w", dir, err)
		}
	}
	// Another mount namespace is what containers deny.
	if out, err := exec.Command("unshare", "--mount", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		return cannot("unshare: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return cgroups, nil
}

// cgroup2 is where the unified hierarchy is mounted: proc_pid_mountinfo(5).
func cgroup2() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 hierarchy is mounted")
}

// machineName is that of the nth machine of this process.
func machineName(n int) string { return fmt.Sprintf("%s%d.%d", prefix, os.Getpid(), n) }

// sweep removes what processes that were killed have left, and are not using still.
func sweep(cgroups string) error {
	left, err := filepath.Glob(filepath.Join(cgroups, prefix+"*"))
	dirs, derr := filepath.Glob(filepath.Join(baseDir, prefix+"*"))
	for _, path := range append(left, dirs...) {
		name := filepath.Base(path)
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), ".")
		pid, perr := strconv.Atoi(owner)
		if perr != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue // it lives
		}
		if removeCgroup(filepath.Join(cgroups, name)) == nil { // nobody is in it
			err = errors.Join(err, os.RemoveAll(filepath.Join(baseDir, name)))
		}
	}
	return errors.Join(err, derr)
}
