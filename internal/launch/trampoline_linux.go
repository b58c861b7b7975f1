package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

var limits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "memlock": unix.RLIMIT_MEMLOCK, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "stack": unix.RLIMIT_STACK,
}

// LimitNames are the resources that can be limited.
func LimitNames() []string { return slices.Sorted(maps.Keys(limits)) }

// jump does what is to be prepared and executes the program. It returns only if it
// can't.
func (t trampoline) jump() (code int, err error) {
	for _, name := range t.PidVars {
		os.Setenv(name, strconv.Itoa(os.Getpid()))
	}
	if t.Umask != nil {
		syscall.Umask(int(*t.Umask))
	}
	for name, l := range t.Limits {
		resource, ok := limits[name]
		if !ok {
			return exitNotExecuted, fmt.Errorf("limit %q: unknown, use one of %v", name, LimitNames())
		}
		// Of package syscall, which then does not put back the soft limit of open
		// files that it found.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return exitNotExecuted, fmt.Errorf("limit %s=%d:%d: %w", name, l.Soft, l.Hard, err)
		}
	}
	if t.User != nil {
		if err := t.User.become(); err != nil {
			return exitNotExecuted, err
		}
	}
	err = syscall.Exec(t.Path, os.Args, os.Environ())
	code = exitNotExecuted
	if errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
	}
	return code, startError(Spec{Path: t.Path}, err)
}
