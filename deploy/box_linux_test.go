package deploy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// box is what a container runtime makes of an image and its options: a root of its own
// with nothing but these files, and a process of a user without any rights.
type box struct {
	Root  string            // an empty directory, on which the new root is mounted
	Files map[string]string // copied into it: path inside, path outside
	Binds map[string]string // directories that are shared with the outside, likewise, read-only
	Tmpfs []string          // directories that can be written
	Write bool              // so can the root
	NoProc,
	NoShm bool
	Groups []string // control groups to enter, and to show under /sys/fs/cgroup: CONTROLLER/NAME
	UID    int
	Args   []string
	Env    []string
}

const (
	envBox  = "DEPLOY_TEST_BOX"
	boxName = "box"
	// boxFailed is the exit code of a box that can't be made.
	boxFailed = 97
)

// boxMain is PID 1 of new namespaces (clone(2)): it makes the box, and becomes what is
// to run in it.
func boxMain() {
	var b box
	err := json.Unmarshal([]byte(os.Getenv(envBox)), &b)
	if err == nil {
		runtime.LockOSThread() // rights are a thread's
		err = errors.Join(b.enter(), b.furnish(), b.drop())
	}
	if err == nil {
		err = syscall.Exec(b.Args[0], b.Args, b.Env)
	}
	fmt.Fprintln(os.Stderr, "box:", err)
	os.Exit(boxFailed)
}

const groupRoot = "/sys/fs/cgroup"

// enter enters the control groups.
func (b box) enter() error {
	for _, g := range b.Groups {
		if err := os.WriteFile(filepath.Join(groupRoot, g, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// furnish makes the root, and moves there (pivot_root(2)).
func (b box) furnish() error {
	unix.Umask(0)
	mount := func(what, kind, dir string, flags uintptr, data string) error {
		if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount(what, dir, kind, flags, data)); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		return nil
	}
	in := func(path string) string { return filepath.Join(b.Root, path) }
	const tight = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	errs := []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		mount("tmpfs", "tmpfs", b.Root, 0, "mode=755"),
		os.MkdirAll(in("/dev"), 0o755),
		unix.Mknod(in("/dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
	}
	if !b.NoProc {
		errs = append(errs, mount("proc", "proc", in("/proc"), tight, ""))
	}
	if !b.NoShm {
		errs = append(errs, mount("shm", "tmpfs", in("/dev/shm"), tight, "mode=1777"))
	}
	for _, dir := range b.Tmpfs {
		errs = append(errs, mount("tmpfs", "tmpfs", in(dir), tight, "mode=1777"))
	}
	for inside, outside := range b.Binds {
		errs = append(errs, mount(outside, "", in(inside), unix.MS_BIND, ""),
			unix.Mount("", in(inside), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	}
	for _, g := range b.Groups {
		controller, _, _ := strings.Cut(g, "/")
		errs = append(errs, mount(filepath.Join(groupRoot, g), "", in(filepath.Join(groupRoot, controller)), unix.MS_BIND, ""))
	}
	for inside, outside := range b.Files {
		file, err := os.ReadFile(outside)
		errs = append(errs, err, os.WriteFile(in(inside), file, fs.FileMode(0o755)))
	}
	if !b.Write {
		errs = append(errs, unix.Mount("", b.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	}
	return errors.Join(append(errs,
		os.Chdir(b.Root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/"))...)
}

// drop gives all rights up, for what is executed, too (capabilities(7)).
func (b box) drop() error {
	var errs []error
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); !errors.Is(err, unix.EINVAL) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Setgroups(nil), unix.Setresgid(b.UID, b.UID, b.UID), unix.Setresuid(b.UID, b.UID, b.UID))...)
}
