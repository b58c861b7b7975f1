package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/program"
	"github.com/handover-go/handover/internal/shortage"
)

// startError names the part of the spec that is to blame. execve(2) has one
// error number for a number of faults: ENOENT is a missing program, a missing
// interpreter of one that is there, or a missing working directory.
func startError(spec Spec, err error) error {
	if derr := checkDir(spec.Dir); derr != nil {
		return fmt.Errorf("working directory: %w", derr)
	}
	path := spec.file()
	st, serr := os.Stat(path)
	why := ""
	switch {
	case serr == nil && st.IsDir():
		why = "it is a directory: "
	case errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EIO): // of a file that ends early
		if found := program.Check(path); errors.Is(found, syscall.ENOEXEC) {
			return fmt.Errorf("execute %w", found)
		}
		why = "not a program for this machine, or a truncated one: "
	case errors.Is(err, syscall.EAGAIN):
		why = "no more processes or threads may be started, of this user (LimitNPROC=, ulimit -u) or in this control group (TasksMax=, pids.max): "
	case errors.Is(err, syscall.ETXTBSY):
		why = "somebody is writing to it (put a new version in place by rename): "
	case errors.Is(err, syscall.E2BIG):
		why = "arguments and environment are too large: "
	case errors.Is(err, syscall.EINVAL):
		why = "a zero byte in the arguments or in the environment: "
	case errors.Is(err, syscall.EBADF):
		why = "a descriptor to pass on is not open: "
	case errors.Is(err, fs.ErrNotExist) && serr == nil:
		why = "its interpreter (#! line) or dynamic loader is missing: "
	case errors.Is(err, fs.ErrPermission):
		err = program.Denied(path, err)
	}
	return shortage.Explain(fmt.Errorf("execute %s: %s%w", spec.Path, why, err))
}

// file is what is to be executed, as this process finds it.
func (s Spec) file() string {
	if filepath.IsAbs(s.Path) {
		return s.Path
	}
	return filepath.Join(s.Dir, s.Path)
}

// checkDir reports why a process can't start in dir.
func checkDir(dir string) error {
	if dir == "" {
		return nil
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if err == nil {
		if aerr := unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS); aerr != nil {
			err = &fs.PathError{Op: "chdir", Path: dir, Err: aerr}
		}
	}
	return err
}
