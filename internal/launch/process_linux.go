package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Supported reports whether this system can do what this package is for.
const Supported = true

// Process is a process that was started or taken over. Its methods may be
// called from any goroutine.
type Process struct {
	Pid int

	pidfd *os.File // readable when the process has ended (pidfd_open(2))
	child bool

	once   sync.Once
	status Status
	done   chan struct{}
}

// Start starts a process. Whoever calls it calls Wait.
func Start(spec Spec) (*Process, error) {
	fds := make([]uintptr, len(spec.Fds))
	for i, fd := range spec.Fds {
		fds[i] = uintptr(fd)
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   Environ(spec.Env),
		Files: fds,
		Sys: &syscall.SysProcAttr{
			Setsid:  spec.Setsid,
			Setpgid: spec.Setpgid,
			PidFD:   &pidfd,
		},
	}
	pid, err := known.start(func() (int, error) {
		return syscall.ForkExec(spec.Path, spec.Args, attr)
	})
	if err != nil {
		return nil, startError(spec, err)
	}
	if pidfd < 0 {
		// Not expected since Linux 5.4. The child can't have been reaped yet,
		// so its pid is its own.
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			known.reap(pid)
			return nil, fmt.Errorf("start %s: %w (%w)", spec.Args[0], ErrUnsupported, err)
		}
	}
	return newProcess(pid, pidfd, true)
}

// startError names the part of the spec that is to blame: the kernel answers
// ENOENT for a missing directory and for a missing program alike.
func startError(spec Spec, err error) error {
	what := spec.Path
	if spec.Dir != "" {
		if _, serr := os.Stat(spec.Dir); serr != nil {
			return fmt.Errorf("working directory: %w", serr)
		}
	}
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("execute %s: not a program for this machine, or a truncated one: %w", what, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("execute %s: not executable (mode, or a noexec mount): %w", what, err)
	}
	return fmt.Errorf("execute %s: %w", what, err)
}

// Adopt follows a process by a pidfd that came from elsewhere. It takes
// ownership of pidfd, also on error.
func Adopt(pid int, pidfd *os.File) (*Process, error) {
	fd, err := Fd(pidfd)
	if err != nil {
		pidfd.Close()
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	pidfd.Close()
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	return newProcess(pid, dup, false)
}

func newProcess(pid, pidfd int, child bool) (*Process, error) {
	// Non-blocking, so that the runtime's poller waits for its end and no
	// thread does.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &Process{
		Pid:   pid,
		pidfd: os.NewFile(uintptr(pidfd), fmt.Sprintf("pidfd:%d", pid)),
		child: child,
		done:  make(chan struct{}),
	}, nil
}

// Pidfd is the descriptor that follows the process. It stays the Process's and
// is open until Close.
func (p *Process) Pidfd() *os.File { return p.pidfd }

// Signal sends sig. It never hits another process that has got the same pid.
// After the process's end it returns os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal) error {
	var err error
	cerr := control(p.pidfd, func(fd int) { err = unix.PidfdSendSignal(fd, sig, nil, 0) })
	if errors.Is(err, unix.ESRCH) || errors.Is(cerr, os.ErrClosed) {
		return os.ErrProcessDone
	}
	return errors.Join(cerr, err)
}

// Wait blocks until the process has ended, reaps it when it is a child of this
// process, and says how it ended. It may be called more than once, also
// concurrently. It returns early, with an unknown status, when Close is called.
func (p *Process) Wait() Status {
	p.once.Do(func() {
		p.status = p.wait()
		close(p.done)
	})
	<-p.done
	return p.status
}

// Done is closed once a call of Wait has seen the process's end.
func (p *Process) Done() <-chan struct{} { return p.done }

func (p *Process) wait() Status {
	unknown := Status{Code: -1}
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return unknown
	}
	err = rc.Read(func(fd uintptr) bool { return ended(int(fd), unix.POLLIN, 0) })
	if err != nil {
		return unknown
	}
	if p.child {
		return known.reap(p.Pid)
	}
	st := unknown
	_ = control(p.pidfd, func(fd int) { st = exitInfo(fd) })
	return st
}

// ended reports whether a pidfd shows the event within the time in milliseconds:
// POLLIN when the process has ended, POLLHUP when it has been reaped too (since
// Linux 6.15).
func ended(pidfd int, event int16, ms int) bool {
	pfd := []unix.PollFd{{Fd: int32(pidfd), Events: event}}
	_ = ignoreEINTR(func() error { _, err := unix.Poll(pfd, ms); return err })
	return pfd[0].Revents&event != 0
}

// exitInfo asks the kernel for the status of somebody else's child. Since Linux
// 6.15 it keeps the status for those who hold a pidfd (PIDFD_GET_INFO), from the
// moment at which the process has been reaped; 50 ms are enough for that.
func exitInfo(pidfd int) Status {
	for _, wait := range []int{0, 50} {
		if wait > 0 && !ended(pidfd, unix.POLLHUP, wait) {
			break
		}
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil {
			break
		}
		if info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			return statusOf(syscall.WaitStatus(info.Exit_code))
		}
	}
	return Status{Code: -1}
}

func statusOf(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Known: true, Code: -1, Signal: int(ws.Signal()), Core: ws.CoreDump()}
	}
	return Status{Known: true, Code: ws.ExitStatus()}
}

// Close gives the descriptor up. The process goes on; its end is not noticed
// any more.
func (p *Process) Close() error { return p.pidfd.Close() }

func signalName(n int) string {
	if s := unix.SignalName(syscall.Signal(n)); s != "" {
		return s
	}
	return fmt.Sprintf("signal %d", n)
}

// Fd is f's descriptor number, without clearing O_NONBLOCK as File.Fd does. It
// is good for as long as the caller keeps f open.
func Fd(f *os.File) (int, error) {
	fd := -1
	err := control(f, func(n int) { fd = n })
	return fd, err
}

// control gives f's descriptor to fn without what File.Fd does to it.
func control(f *os.File, fn func(fd int)) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Control(func(fd uintptr) { fn(int(fd)) })
}

func ignoreEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}
