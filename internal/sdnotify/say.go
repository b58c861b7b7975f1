package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file is what there is to say besides READY=1 and MAINPID=.

// Reloading says that what the supervisor asked for, or the service does by itself, has
// begun; READY=1 says that it is over. Both assignments have to be in one datagram: by
// the time a supervisor that has sent a signal knows that this is the answer.
func Reloading() []string { return append([]string{"RELOADING=1"}, monotonic()...) }

// Extend asks for so much time from now on, in which this is said again or what goes on
// has come to its end. It makes no time shorter.
func Extend(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}

// maxStatus is how many bytes of a status a supervisor is bothered with.
const maxStatus = 300

// Status is one line for people.
func Status(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxStatus {
		text = text[:maxStatus-len("…")] + "…"
	}
	return "STATUS=" + strings.ToValidUTF8(text, "")
}

// Errno is the number of the system's error that err wraps, or nothing.
func Errno(err error) []string {
	var n syscall.Errno
	if !errors.As(err, &n) || n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("ERRNO=%d", int(n))}
}

// Environment variables of a supervisor that wants to be told, at least so often, that
// the service lives (sd_watchdog_enabled(3)).
const (
	EnvWatchdog    = "WATCHDOG_USEC"
	EnvWatchdogPid = "WATCHDOG_PID"
)

// ErrWatchdog is wrapped by errors about what these variables say.
var ErrWatchdog = errors.New("not a watchdog's interval")

// Watchdog is within which time the supervisor wants to hear WATCHDOG=1 of this process,
// or 0. An error names the variable.
func Watchdog() (time.Duration, error) {
	v := os.Getenv(EnvWatchdog)
	if v == "" || !Enabled() {
		return 0, nil
	}
	us, err := strconv.ParseInt(v, 10, 64)
	if err != nil || us <= 0 {
		return 0, fmt.Errorf("%w: %s=%q: not a number of microseconds", ErrWatchdog, EnvWatchdog, v)
	}
	if p := os.Getenv(EnvWatchdogPid); p != "" && p != strconv.Itoa(os.Getpid()) {
		if _, err := strconv.Atoi(p); err != nil {
			return 0, fmt.Errorf("%w: %s=%q: not a pid", ErrWatchdog, EnvWatchdogPid, p)
		}
		return 0, nil // somebody else's
	}
	return time.Duration(min(us, int64(24*time.Hour/time.Microsecond))) * time.Microsecond, nil
}
