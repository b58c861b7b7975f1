// Package launch starts processes and follows them to their end, whether they
// are children of this process or were taken over from another one.
//
// os/exec does not fit here for three reasons: a listening socket passed
// through exec.Cmd.ExtraFiles loses O_NONBLOCK for every process that shares
// it; a process that was taken over is nobody's child here and can't be waited
// for; and a worker must be executed from the image that runs, not from a path
// that may hold another program by now.
package launch

import (
	"errors"
	"fmt"
	"syscall"
)

// Self is the executable that runs in this process, also when its file has been
// replaced or deleted since (proc(5), /proc/pid/exe). Only a child that this
// process starts may use it.
const Self = "/proc/self/exe"

// ErrUnsupported is returned where processes can't be followed by descriptor.
var ErrUnsupported = errors.New("starting workers and upgrading need Linux 5.15 or later; run the program as one process here")

// Elsewhere, if set, is asked how a process has ended that is not this one's child, if the
// kernel does not tell: who reaps it may. It is set before any process is followed.
var Elsewhere func(pid int) (status syscall.WaitStatus, ok bool)

// NoKernelInfo is for tests: the kernel is one that does not tell (before Linux 6.15).
var NoKernelInfo bool

// Spec is a process to start.
type Spec struct {
	Path string   // executable, Self for the running image
	Args []string // argv, the title in argv[0] included
	Env  []string // of two entries with one name the last counts
	Dir  string   // working directory; "" is this process's own
	// Fds become descriptors 0, 1, 2, … of the new process. They stay the
	// caller's, who keeps them open until Start has returned. They are numbers
	// and no *os.File because os.File.Fd clears O_NONBLOCK, and because an
	// *os.File of a listening socket is in the runtime's poller: a parent that
	// never accepts would wake up at every connection.
	Fds []int
	// Prepare, if set, is done in the new process before it executes Path. An error
	// that execve(2) has then is no error of Start: the process says it on its
	// standard error and exits with 126 or 127, as a shell would.
	Prepare *Prepare
	User    *User // nil: this process's own; with Prepare, say it there
	Setsid  bool  // in a session of its own (setsid(2))
	Setpgid bool  // in a process group of its own (setpgid(2))
	// Sibling makes it a child of this process's parent (CLONE_PARENT, clone(2)), if that
	// can be: who supervises this process has to be told of its end, and this process's
	// Wait learns how it ended only since Linux 6.15.
	Sibling bool
}

// Status is how a process ended.
type Status struct {
	Known  bool // false: it was not this process's child and nothing told
	Code   int  // exit status when it exited, -1 otherwise
	Signal int  // the signal that killed it, 0 otherwise
	Core   bool
}

// Success reports whether the process is known to have exited with status 0.
func (s Status) Success() bool { return s.Known && s.Signal == 0 && s.Code == 0 }

func (s Status) String() string {
	switch {
	case !s.Known:
		return "exit status unknown"
	case s.Signal != 0:
		name := signalName(s.Signal)
		if s.Core {
			return fmt.Sprintf("killed by %s (core dumped)", name)
		}
		return "killed by " + name
	default:
		return fmt.Sprintf("exit status %d", s.Code)
	}
}
