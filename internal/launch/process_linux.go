package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/program"
)

// Supported reports whether this system can do what this package is for.
const Supported = true

// Process is a process that was started or taken over. Its methods may be
// called from any goroutine.
type Process struct {
	Pid int

	pidfd *os.File // readable when the process has ended (pidfd_open(2))
	child bool
	// reaped is how long its parent may take to reap it, if that is more than reapTime.
	reaped time.Duration

	once   sync.Once
	status Status
	done   chan struct{}
}

// Start starts a process. Whoever calls it calls Wait, and Close at the end.
//
// Its errors say what could not be executed and why, and match fs.ErrNotExist,
// fs.ErrPermission, syscall.ENOEXEC and so on.
func Start(spec Spec) (*Process, error) {
	fds := make([]uintptr, len(spec.Fds))
	for i, fd := range spec.Fds {
		fds[i] = uintptr(fd)
	}
	args := spec.Args
	if len(args) == 0 {
		args = []string{spec.Path}
	}
	if spec.Path != Self {
		if err := program.Whole(spec.file()); err != nil {
			return nil, fmt.Errorf("execute %w", err)
		}
	}
	if spec.Prepare != nil {
		if err := unix.Faccessat(unix.AT_FDCWD, spec.Path, unix.X_OK, unix.AT_EACCESS); err != nil {
			return nil, startError(spec, err)
		}
		var err error
		if spec, err = spec.through(*spec.Prepare); err != nil {
			return nil, err
		}
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   Environ(spec.Env),
		Files: fds,
		Sys: &syscall.SysProcAttr{
			Setsid:     spec.Setsid,
			Setpgid:    spec.Setpgid,
			PidFD:      &pidfd,
			Credential: spec.User.credential(),
		},
	}
	p := &Process{child: true, done: make(chan struct{})}
	var err error
	if spec.Sibling {
		p.child, p.reaped = false, siblingReapTime
		attr.Sys.Cloneflags = unix.CLONE_PARENT
		p.Pid, err = syscall.ForkExec(spec.Path, args, attr)
	}
	if !spec.Sibling || err == syscall.EINVAL { // PID 1 has no siblings
		p.child = true
		attr.Sys.Cloneflags = 0
		err = known.start(p, func() (int, error) { return syscall.ForkExec(spec.Path, args, attr) })
	}
	if err != nil {
		return nil, startError(spec, err)
	}
	if pidfd < 0 {
		// Not expected since Linux 5.4. The child can't have been reaped yet,
		// so its pid is its own.
		pidfd, err = unix.PidfdOpen(p.Pid, 0)
	}
	if err == nil {
		err = p.open(pidfd)
	}
	if err != nil {
		_ = syscall.Kill(p.Pid, syscall.SIGKILL)
		if p.child {
			known.reap(p)
		}
		return nil, fmt.Errorf("start %s: %w (%w)", spec.Path, ErrUnsupported, err)
	}
	return p, nil
}

// Adopt follows a process by a pidfd that came from elsewhere. It takes
// ownership of pidfd, also on error.
func Adopt(pid int, pidfd *os.File) (*Process, error) {
	defer pidfd.Close()
	fd := -1
	var err error
	cerr := control(pidfd, func(n int) {
		if err = checkPidfd(pid, n); err == nil {
			fd, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	return adopt(pid, fd)
}

// Follow follows a process that somebody else has started. Whether the pid is
// still that process's is for the caller to know. When there is none of that pid,
// the error matches os.ErrProcessDone.
func Follow(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("follow process %d: %w", pid, err)
	}
	return adopt(pid, fd)
}

func adopt(pid, fd int) (*Process, error) {
	p := &Process{Pid: pid, done: make(chan struct{})}
	if err := p.open(fd); err != nil {
		return nil, fmt.Errorf("follow process %d: %w", pid, err)
	}
	return p, nil
}

// checkPidfd makes sure that a descriptor is a pidfd, and of this process: its
// other end, whoever that was, may be wrong. A process that has been reaped has
// no pid any more.
func checkPidfd(pid, fd int) error {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	return checkInfo(pid, b)
}

// checkInfo does by what the kernel says of the descriptor (proc_pid_fdinfo(5)).
func checkInfo(pid int, b []byte) error {
	for line := range bytes.Lines(b) {
		v, ok := bytes.CutPrefix(line, []byte("Pid:"))
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(string(bytes.TrimSpace(v))); err != nil || n != pid && n != -1 {
			return fmt.Errorf("the descriptor is process %s's", bytes.TrimSpace(v))
		}
		return nil
	}
	return errors.New("the descriptor is not a pidfd")
}

// open takes ownership of pidfd.
func (p *Process) open(pidfd int) error {
	// Non-blocking, so that the runtime's poller waits for its end and no
	// thread does.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return err
	}
	p.pidfd = os.NewFile(uintptr(pidfd), fmt.Sprintf("pidfd:%d", p.Pid))
	return nil
}

// Pidfd is the descriptor that follows the process. It stays the Process's and
// is open until Close.
func (p *Process) Pidfd() *os.File { return p.pidfd }

// Signal sends sig. It never hits another process that has got the same pid.
// After the process's end, reaped or not, and after Close, it returns
// os.ErrProcessDone. Signal 0 only finds out whether it has ended (kill(2)).
func (p *Process) Signal(sig syscall.Signal) error {
	var err error
	cerr := control(p.pidfd, func(fd int) {
		// The kernel takes signals for a process that was not reaped yet.
		if err = os.ErrProcessDone; !shows(fd, unix.POLLIN) {
			err = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
	})
	if cerr != nil || err == unix.ESRCH { // closed, the one fault of control
		return os.ErrProcessDone
	}
	return err
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

// Done is closed once a call of Wait has seen the process's end, or Close.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ends blocks until the process has ended, without reaping it, and returns false when Close
// is called before.
func (p *Process) Ends() bool { return p.await(unix.POLLIN) }

func (p *Process) wait() Status {
	if !p.Ends() {
		return unknown
	}
	if p.child {
		return known.reap(p)
	}
	return p.exitInfo()
}

// await waits until the pidfd shows the event: POLLIN when the process has
// ended, POLLHUP when it has been reaped too (since Linux 6.15). It returns
// false when the file is closed, or its read deadline passes, first.
func (p *Process) await(event int16) bool {
	rc, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	return rc.Read(func(fd uintptr) bool { return shows(int(fd), event) }) == nil
}

// shows reports whether a pidfd shows the event now.
func shows(pidfd int, event int16) bool {
	pfd := []unix.PollFd{{Fd: int32(pidfd), Events: event}}
	_ = ignoreEINTR(func() error { _, err := unix.Poll(pfd, 0); return err })
	return pfd[0].Revents&event != 0
}

// reapTime is how long whoever has to reap an adopted process may take for it.
// Tests change it.
var reapTime = 50 * time.Millisecond

// siblingReapTime is that of a process that this one has started for its own parent:
// nothing but the report of its failure waits for it.
const siblingReapTime = 2 * time.Second

// exitInfo finds out the status of somebody else's child: from the kernel, or else from
// whoever reaps it.
func (p *Process) exitInfo() Status {
	st := p.kernelInfo()
	if st.Known || Elsewhere == nil {
		return st
	}
	// Whoever was its parent may be about to end, so that another one has it then.
	for limit := time.Now().Add(reapTime); ; time.Sleep(reapTime / 10) {
		if ws, ok := Elsewhere(p.Pid); ok {
			return StatusOf(ws)
		}
		if time.Now().After(limit) {
			return unknown
		}
	}
}

// kernelInfo asks the kernel. Since Linux 6.15 it keeps the status for those who hold a
// pidfd (PIDFD_GET_INFO), from the moment at which the process has been reaped.
func (p *Process) kernelInfo() Status {
	if NoKernelInfo {
		return unknown
	}
	var st Status
	var err error
	ask := func(fd int) { st, err = exitInfo(fd) }
	cerr := control(p.pidfd, ask)
	if cerr != nil || st.Known || err != nil && err != unix.ESRCH { // it is being reaped
		return st
	}
	_ = p.pidfd.SetReadDeadline(time.Now().Add(max(reapTime, p.reaped)))
	if p.await(unix.POLLHUP) {
		_ = control(p.pidfd, ask)
	}
	return st
}

func exitInfo(pidfd int) (Status, error) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil {
		return unknown, err
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return unknown, nil
	}
	return StatusOf(syscall.WaitStatus(info.Exit_code)), nil
}

var unknown = Status{Code: -1}

// Close gives the process up. It goes on; its end is not noticed any more. A
// child that Wait has not reaped is left to ReapOrphans.
func (p *Process) Close() error {
	known.forget(p)
	return p.pidfd.Close()
}

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
