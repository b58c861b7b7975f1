// Package faulttest_test runs the command while something fails it: the machine it runs on.
// docs/faults.md has the table.
package faulttest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// command is where the command was built, static a program of another maker's, and self this
// binary, each where others than root may execute it.
var command, static, self string

func TestMain(m *testing.M) {
	if main := programs[filepath.Base(os.Args[0])]; main != nil {
		main()
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// own is the name of this binary there, and of processes that it has become.
const own = "faulttest"

// programs are what this binary is by other names.
var programs = map[string]func(){}

func run(m *testing.M) (code int, err error) {
	if err := ownMounts(); err != nil {
		return 1, err
	}
	if err := procs.Subreaper(); err != nil {
		return 1, err
	}
	// Where others than root may execute it, too.
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	command, static, self = filepath.Join(dir, "handover"), filepath.Join(dir, "static"), filepath.Join(dir, own)
	b, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(self, b, 0o755)); err != nil {
		return 1, err
	}
	for file, pkg := range map[string]string{command: "cmd/handover", static: "testdata/workers/static"} {
		if out, err := exec.Command("go", "build", "-o", file, "github.com/handover-go/handover/"+pkg).CombinedOutput(); err != nil {
			return 1, fmt.Errorf("%w\n%s", err, out)
		}
	}
	code = m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := procs.ReapAll(ctx); err != nil {
		return code, fmt.Errorf("processes left behind: %w", err)
	}
	return code, nil
}

// ownMounts gives this process, and all that it starts, mounts of their own: what is mounted
// for a test is gone with it. Root may do that; the tests that mount something are root's.
func ownMounts() error {
	const done = "FAULTTEST_OWN_MOUNTS"
	if os.Geteuid() != 0 || os.Getenv(done) != "" {
		os.Unsetenv(done)
		return nil
	}
	// For this thread, whose they are when it executes the same program again.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), done+"=1"))
}
