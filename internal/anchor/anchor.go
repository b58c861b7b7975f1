// Package anchor is a process whose pid never changes, for services that nothing
// else supervises: in a terminal, under go run, as PID 1 of a container.
//
// It starts the parent in a process group of its own, so that a terminal's
// Ctrl-C reaches it once, through the anchor; it forwards signals to whichever
// process is the parent now; it reaps what is orphaned; and it exits with the
// service's status once nothing of the service is left. It speaks systemd's
// notification protocol to the parent (sd_notify(3)), so the parent speaks one
// language to whoever is above it.
//
// # Signals
//
// INT and TERM go to the parent at once, as does QUIT. HUP, USR1, USR2, WINCH, TTIN
// and, unless the terminal stops output from the background (stty tostop), TTOU
// wait until the parent has said READY=1. A stop that was sent to a parent which
// then names its successor is sent to that one, too: parents do not pass stops on.
//
// Once the parent is dead and none takes its place, what it left drains by itself, and INT
// or TERM, if it is not the first, kills that. The HUP of a terminal that has closed is a TERM,
// once, and nothing when HUP was ignored at the start (nohup(1)). TSTP stops
// parent and anchor until the anchor is continued. Other signals do to the anchor
// what they do to any process.
//
// # A supervisor above
//
// An anchor may have a supervisor of its own (NOTIFY_SOCKET), to which it is the
// service: it passes on what the parent says, but for what is about processes and
// descriptors, of which those are the anchor's: MAINPID, BARRIER, FDSTORE.
//
// # Sockets
//
// What systemd, or whoever started the anchor, has passed in LISTEN_FDS goes to the
// parent with the same numbers. The anchor keeps no copy. What the parent gives it to keep
// (FDSTORE=1), it passes to one that it starts because that one has died.
package anchor

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
)

// EnvPid tells the parent the anchor's pid, to show it to people.
const EnvPid = sdnotify.EnvAnchor

// varFormat is a variable in notifications, by which a parent says that its program may be
// the anchor's, and which formats it reads of what an anchor hands to the next program: see
// upgrade_linux.go.
const varFormat = "X_HANDOVER_ANCHOR"

// format is what this program writes and reads there.
const format = "1"

// Receive lets the parent take what the anchor has passed on of LISTEN_FDS, and of
// WATCHDOG_USEC. The pid that has to stand in LISTEN_PID and WATCHDOG_PID is not known before there is the process, so the
// parent says by itself that it is meant, if it was started by an anchor.
func Receive() {
	if os.Getenv(EnvPid) == "" {
		return
	}
	self := strconv.Itoa(os.Getpid())
	if os.Getenv(listen.EnvPid) == "" {
		os.Setenv(listen.EnvPid, self)
	}
	if os.Getenv("WATCHDOG_USEC") != "" {
		os.Setenv("WATCHDOG_PID", self) // the anchor has passed on what is meant for it
	}
	launch.Elsewhere = ask
}

// Hung is how long the parent may not say that it Lives, 0 if nobody wants to know.
func Hung() time.Duration {
	ms, err := strconv.ParseInt(os.Getenv(EnvHung), 10, 32)
	if err != nil || ms < 0 || !sdnotify.Anchored() {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// Offer lets the anchor become one of the parent's program, if it is another one. Until
// then a parent that dies is started again as what the anchor is of: make the offer when
// the program has proven itself.
func Offer() {
	if sdnotify.Anchored() {
		_ = sdnotify.Send(varFormat + "=" + format) // if it fails, the anchor stays as it is
	}
}

// varKeeps is a variable in notifications: the pids of processes that a dead parent has left
// and that the parent has taken over.
const varKeeps = "X_HANDOVER_KEEPS"

// Keeps is how a parent says that it has taken these over, so that they are not ended.
func Keeps(pids []string) string { return varKeeps + "=" + strings.Join(pids, " ") }

// Lives is how a parent says that it does its work. Once it has, it is killed when it does not
// say so any more for Config.HungAfter, and another one is started. It is another sign than
// WATCHDOG=1, by which the service as a whole says that it serves.
const Lives = varLives + "=1"

const varLives = "X_HANDOVER_LIVES"

// EnvHung says how long a parent may be silent, in milliseconds.
const EnvHung = "HANDOVER_HUNG_MS"

// Config says what to hold.
type Config struct {
	Title string   // of the parent, shown in ps
	Env   []string // of the parent, beyond this process's own
	// Role is what makes a program that this process executes the anchor again: Become
	// was called with it.
	Role []string
	// DrainSignal is what asks a worker to drain that does not see by itself that its
	// parent is gone. Default SIGTERM.
	DrainSignal syscall.Signal
	// Grace is how long what a dead parent leaves behind may take to end by
	// itself, before it is killed. Default 30 s, which is more than a drain takes.
	Grace time.Duration
	// HungAfter is how long a parent may not say that it lives. 0: for ever.
	HungAfter time.Duration
	// Logger gets what happens. Default slog.Default().
	Logger *slog.Logger
}

// DefaultGrace is Config.Grace's default.
const DefaultGrace = 30 * time.Second

// Validate says which part of the configuration can't work.
func (c Config) Validate() error {
	if c.Grace < 0 {
		return fmt.Errorf("anchor: grace %v: must not be negative", c.Grace)
	}
	return nil
}
