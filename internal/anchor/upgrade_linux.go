package anchor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/anchor/early"
	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
)

// This file is how an anchor becomes one of another program: it executes it in this
// process, so that the pid stays, and children are its children.

// envState holds what the image before this one has handed over: the parent's pid, the
// number of the notification socket's descriptor, and the rest as JSON. The first two a
// program of any version has to find there: with them the service goes on.
const envState = early.Env

// state is what an image hands over. A field that is not there is one that is zero.
// Descriptors are numbers; they are open.
type state struct {
	Ready    bool                `json:"ready,omitempty"`
	Served   bool                `json:"served,omitempty"`
	Nohup    bool                `json:"nohup,omitempty"`
	Early    []syscall.Signal    `json:"early,omitempty"`
	Stops    int                 `json:"stops,omitempty"`
	Asked    syscall.Signal      `json:"asked,omitempty"`
	Failed   int                 `json:"failed,omitempty"` // see backoff
	Clock    clock.Reading       `json:"clock,omitzero"`   // what the next two are written with
	Up       time.Time           `json:"up,omitzero"`
	Left     map[int]time.Time   `json:"left,omitempty"`
	Store    []listen.Descriptor `json:"store,omitempty"`
	Statuses map[int]uint32      `json:"statuses,omitempty"` // see statuses
}

// encode is a variable for the tests, in which the other image is of a strange version.
var encode = func(s state) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// note writes since when the parent is up, and until when what is left of others may live.
func (s *state) note(up time.Time, left map[int]time.Time) {
	s.Clock, s.Left = clock.Now(), make(map[int]time.Time, len(left))
	s.Up = s.Clock.Note(up)
	for pid, limit := range left {
		s.Left[pid] = s.Clock.Note(limit)
	}
}

// times are what note has written; up is good if there is nothing.
func (s *state) times(up time.Time) (since time.Time, left map[int]time.Time) {
	if !s.Up.IsZero() {
		up = s.Clock.Past(s.Up)
	}
	left = make(map[int]time.Time, len(s.Left))
	for pid, limit := range s.Left {
		left[pid] = s.Clock.Moment(limit)
	}
	return up, left
}

// outdated reports whether the parent runs another program than the anchor, that can be
// the anchor, too. The one before it has to be gone: it could go on instead.
func (a *anchor) outdated() bool {
	if strings.HasPrefix(runtime.GOARCH, "mips") || a.dead || !a.ready || a.wish.pid != 0 || a.able != a.main.Pid || a.tried == a.main.Pid {
		return false
	}
	if a.prev != nil {
		if a.prev.Signal(0) == nil {
			return false
		}
		a.prev.Close()
		a.prev = nil
	}
	own, err := os.Stat(launch.Self)
	theirs, terr := os.Stat(exeOf(a.main.Pid))
	return err == nil && terr == nil && !os.SameFile(own, theirs)
}

func exeOf(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/exe" }

// upgrade executes the parent's program. It returns only if that fails, and the anchor
// goes on as it was.
func (a *anchor) upgrade() {
	a.inbox.halt(a.takeNow)
	if !a.outdated() { // any more, after what was said
		a.inbox.resume(a.log)
		return
	}
	a.tried = a.main.Pid
	// Handlers do not outlive execve(2). See package early for what that means.
	undo := ignore(a.signals.caught)
	a.signals.drain(a) // what had arrived
	err := a.become()
	undo()
	a.inbox.resume(a.log)
	a.log.Error("the anchor goes on with its own program", "error", err)
}

func (a *anchor) become() error {
	inbox, err := a.inbox.fd()
	if err != nil {
		return err
	}
	s := state{
		Ready: a.ready, Served: a.served, Nohup: a.nohup, Early: a.early, Stops: a.stops, Asked: a.asked,
		Failed: a.backoff.failed, Store: a.store.list, Statuses: a.statuses.m,
	}
	s.note(a.upAt, a.left)
	fds := []int{inbox}
	for _, d := range a.store.list {
		fds = append(fds, d.Fd)
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
		defer unix.CloseOnExec(fd)
	}
	title, _, _ := strings.Cut(readFile("/proc/self/cmdline"), "\x00")
	args, env := launch.Titled(title, append(os.Environ(), a.cfg.Role...))
	env = append(env, fmt.Sprintf("%s=%d %d %s", envState, a.main.Pid, inbox, encode(s)))
	return execute(exeOf(a.main.Pid), args, env)
}

// resume takes over from the image before this one, if there was one, and reports
// whether there was.
func (a *anchor) resume() (bool, error) {
	v, ok := os.LookupEnv(envState)
	os.Unsetenv(envState)
	if !ok {
		return false, nil
	}
	pid, inbox, s, err := parseState(v)
	if err != nil {
		return true, err
	}
	unix.CloseOnExec(inbox)
	sd, err := sdnotify.ResumeInbox(os.NewFile(uintptr(inbox), "notify"))
	if err != nil {
		return true, err
	}
	a.inbox = startInbox(sd, a.log)
	// It is a child that only this process reaps: the pid is its own.
	if a.main, err = launch.Follow(pid); err != nil {
		return true, err
	}
	a.watch(a.main)
	a.upAt = time.Now()
	if s == nil {
		a.log.Error("what the anchor was before can't be read but for the parent's pid: it goes on with that", "pid", pid)
		a.ready, a.served, a.nohup = true, true, false // or no signal would reach it any more
		return true, nil
	}
	a.ready, a.served, a.nohup, a.early, a.stops, a.asked = s.Ready, s.Served, s.Nohup, s.Early, s.Stops, s.Asked
	a.backoff.failed, a.store.list = s.Failed, s.Store
	a.upAt, a.left = s.times(a.upAt)
	if len(a.left) > 0 {
		a.clearLeft()
	}
	for _, d := range s.Store {
		unix.CloseOnExec(d.Fd)
	}
	a.statuses.resume(s.Statuses)
	return true, nil
}

// parseState takes apart what envState holds. There is no state if it can't be read.
func parseState(v string) (pid, inbox int, s *state, err error) {
	f := strings.SplitN(v, " ", 3)
	if len(f) < 2 {
		return 0, 0, nil, fmt.Errorf("%s=%q: what the anchor was before can't be read", envState, v)
	}
	pid, err = strconv.Atoi(f[0])
	inbox, ierr := strconv.Atoi(f[1])
	if err := errors.Join(err, ierr); err != nil {
		return 0, 0, nil, fmt.Errorf("%s=%q: %w", envState, v, err)
	}
	if pid < 1 || inbox < 3 {
		return 0, 0, nil, fmt.Errorf("%s=%q: no process, or no descriptor", envState, v)
	}
	if len(f) == 3 {
		s = &state{}
		if json.Unmarshal([]byte(f[2]), s) != nil {
			s = nil
		}
	}
	return pid, inbox, s, nil
}

// catchUp acts on what has arrived before Run was called.
func (a *anchor) catchUp() {
	if early.Signals == nil {
		return
	}
	signal.Stop(early.Signals)
	for len(early.Signals) > 0 {
		switch sig := (<-early.Signals).(syscall.Signal); sig {
		case syscall.SIGINT, syscall.SIGTERM:
			a.stop(sig) // once more by the other channel is an echo
		default:
			a.other(sig)
		}
	}
}

func readFile(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}

// reads reports whether a program that says so can take over from this one.
func reads(formats string) bool { return slices.Contains(strings.Fields(formats), format) }
