package signals

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Real-time signals that nothing else uses. marker is the one by which flush knows that
// all others have arrived, probe the one that settled sends to threads.
const (
	marker = syscall.Signal(50)
	probe  = syscall.Signal(49)
)

// settled waits until the runtime has noted every signal that was sent to this process
// before the call, until the deadline at the latest.
//
// A thread can have taken a signal and not yet run its handler, while another takes and
// handles one that was sent later. So each thread gets a signal of its own: it is let
// through only when no handler runs in that thread. What waits for the whole process has
// to be taken first, as a thread's own signals come before those.
func settled(deadline time.Time) {
	poll(deadline, func() bool { return !pending("/proc/self/status", "ShdPnd:") })
	const threads = "/proc/self/task/"
	sink := make(chan os.Signal, 1)
	signal.Notify(sink, probe) // or the runtime's thread for signals blocks it
	defer signal.Stop(sink)
	list, err := os.ReadDir(threads)
	if err != nil {
		return // no /proc: the order in which the kernel delivers has to do
	}
	for _, thread := range list {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil || unix.Tgkill(os.Getpid(), tid, probe) != nil {
			continue // it has ended, and had handled all before
		}
		poll(deadline, func() bool { return !pending(threads+thread.Name()+"/status", "SigPnd:") })
	}
}

// pending returns whether a status file of proc(5) shows waiting signals in a field. One
// that can't be read has none.
func pending(path, field string) bool {
	status, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(status), field)
	set, _, _ := strings.Cut(after, "\n")
	return strings.Trim(set, "\t 0") != ""
}

func poll(deadline time.Time, done func() bool) {
	for !done() && time.Now().Before(deadline) {
		time.Sleep(50 * time.Microsecond)
	}
}
