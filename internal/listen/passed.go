package listen

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The variables by which a process is told which descriptors it was started with
// (sd_listen_fds_with_names(3)).
const (
	EnvFds   = "LISTEN_FDS"
	EnvNames = "LISTEN_FDNAMES"
	EnvPid   = "LISTEN_PID"
	envPidfd = "LISTEN_PIDFDID" // says the same as EnvPid
)

const (
	// firstFd is SD_LISTEN_FDS_START.
	firstFd = 3
	// maxPassed is more than anybody passes, and keeps a bad count from costing
	// memory.
	maxPassed = 1 << 16
	// unnamed is the name of everything where there is no EnvNames.
	unnamed = "unknown"
)

// Descriptor is one that this process was started with.
type Descriptor struct {
	Name string
	Fd   int
}

// Passed are the descriptors that this process was started with and that nobody
// has claimed yet. They are closed on exec. It is not for concurrent use.
type Passed []Descriptor

// FromSupervisor takes what systemd, or whoever else speaks its protocol, has
// passed, and the variables out of the environment. It is for this process only if
// LISTEN_PID says so; else there is nothing. Names need not be there, nor be
// different: all sockets of a systemd unit have one. Errors name the variable.
func FromSupervisor() (Passed, error) { return take(false) }

// FromParent is FromSupervisor for what a parent of ours has passed. It can't know
// the pid beforehand, so LISTEN_PID may be absent; in exchange every descriptor has
// a name, and no other has the same.
func FromParent() (Passed, error) { return take(true) }

// Forget takes the variables out of the environment, where they can't be meant for
// this process.
func Forget() {
	for _, k := range []string{EnvFds, EnvNames, EnvPid, envPidfd} {
		os.Unsetenv(k)
	}
}

func take(parent bool) (Passed, error) {
	count, names, pid := os.Getenv(EnvFds), os.Getenv(EnvNames), os.Getenv(EnvPid)
	Forget()
	list, err := parse(count, names, pid, os.Getpid(), parent)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		flags, err := unix.FcntlInt(uintptr(d.Fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC != 0 {
			err = unix.EBADF // no execve(2) has left it open: it is the Go runtime's own
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s: descriptor %d, %q, is not open: %w", EnvFds, count, d.Fd, d.Name, err)
		}
	}
	for _, d := range list {
		unix.CloseOnExec(d.Fd)
	}
	if fd := list.File(TextName); fd >= 0 {
		unix.Close(fd)
	}
	return list, nil
}

// parse reads the values of the variables, for the process self.
func parse(count, names, pid string, self int, parent bool) (Passed, error) {
	if pid == "" && !parent {
		return nil, nil
	}
	if pid != "" {
		n, err := strconv.Atoi(pid)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s=%q: not a pid", EnvPid, pid)
		}
		if n != self {
			return nil, nil
		}
	}
	if count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxPassed {
		return nil, fmt.Errorf("%s=%q: not a count from 0 to %d", EnvFds, count, maxPassed)
	}
	var list []string
	switch {
	case names != "":
		list = strings.Split(names, ":")
	case !parent:
		list = slices.Repeat([]string{unnamed}, n)
	}
	if len(list) != n {
		return nil, fmt.Errorf("%s=%d, but %s=%q has %d names", EnvFds, n, EnvNames, names, len(list))
	}
	passed, seen := make(Passed, n), make(map[string]bool, n)
	for i, name := range list {
		if parent && (name == "" || seen[name]) {
			return nil, fmt.Errorf("%s=%q: empty or repeated name %q", EnvNames, names, name)
		}
		seen[name] = true
		passed[i] = Descriptor{Name: name, Fd: firstFd + i}
	}
	return passed, nil
}

// Env are the variables for a process that is started with the descriptors of p as
// its descriptors 3, 4, …, but for LISTEN_PID, which nobody knows before.
func (p Passed) Env() []string {
	names := make([]string, len(p))
	for i, d := range p {
		names[i] = d.Name
	}
	return []string{fmt.Sprintf("%s=%d", EnvFds, len(p)), EnvNames + "=" + strings.Join(names, ":")}
}

// Socket claims the socket that s describes, and returns its descriptor, which is
// the caller's then, or -1 if there is none. It is the one with s's name, whatever
// its address is; if there are several, the one with s's address goes first. An
// error that wraps ErrKind says that none of that name is of s's kind. If there is
// no such name, it is the one with s's address.
//
// bound reports whether it is one that a process of this service has bound, for a socket
// of another name.
func (p *Passed) Socket(s Spec) (fd int, bound bool, err error) {
	find := func(ok func(Descriptor) bool) int { return slices.IndexFunc(*p, ok) }
	named := func(d Descriptor) bool { return d.Name == s.Name }
	there := func(d Descriptor) bool { return s.boundTo(d.Fd) && (!isStoreName(d.Name) || s.reachable()) }

	i := find(func(d Descriptor) bool { return named(d) && there(d) })
	if i < 0 {
		i = find(func(d Descriptor) bool { return named(d) && s.Check(d.Fd) == nil })
	}
	if i < 0 {
		if i = find(named); i >= 0 {
			d := (*p)[i]
			return -1, false, fmt.Errorf("%s: descriptor %d, %q: %w: change one of them", EnvFds, d.Fd, d.Name, s.Check(d.Fd))
		}
		i = find(there)
	}
	bound = i >= 0 && isStoreName((*p)[i].Name)
	return p.claim(i), bound, nil
}

// Stored claims the socket that a process of this service has bound for s, whose name,
// network and address are the same, and that its supervisor has kept under s.StoreName. It
// returns -1 if there is none.
func (p *Passed) Stored(s Spec) (fd int) {
	return p.claim(slices.IndexFunc(*p, func(d Descriptor) bool {
		return d.Name == s.StoreName() && s.Check(d.Fd) == nil && s.reachable()
	}))
}

// File claims the descriptor of that name, whatever it is, and returns it, or -1 if
// there is none.
func (p *Passed) File(name string) (fd int) {
	return p.claim(slices.IndexFunc(*p, func(d Descriptor) bool { return d.Name == name }))
}

func (p *Passed) claim(i int) (fd int) {
	if i < 0 {
		return -1
	}
	fd = (*p)[i].Fd
	*p = slices.Delete(*p, i, i+1)
	return fd
}

// Reject closes what nobody has claimed, and says so in one warning.
func (p *Passed) Reject(log *slog.Logger) {
	if len(*p) == 0 {
		return
	}
	var list []string
	for _, d := range *p {
		kind, _ := Kind(d.Fd)
		what := fmt.Sprintf("%s (descriptor %d, %s", d.Name, d.Fd, kind)
		if a := Addr(d.Fd); a != nil {
			what += " " + a.String()
		}
		list = append(list, what+")")
	}
	log.Warn("descriptors in LISTEN_FDS that nothing here asks for, by name or by address: closed", "descriptors", strings.Join(list, ", "))
	p.Close()
}

// Close closes what nobody has claimed.
func (p *Passed) Close() {
	for _, d := range *p {
		unix.Close(d.Fd)
	}
	*p = nil
}
