// Package workerset is the parent's side of a set of worker processes: it starts
// them in groups, replaces those that fail before they are gone, rolls a group to
// new processes, scales it, and stops it with a drain.
//
// Groups may go after others (Group.After), have programs, users and sockets of their
// own, and what happens to their workers is told in Node's words (Config.Events).
//
// What happens to a worker is decided by the pure package internal/lifecycle;
// docs/architecture.md has its table. This package is the shell around it: one
// goroutine, the set's loop, owns all state, and everything else, readers of
// channels, waiters for processes, callers of methods, sends it events.
//
// The package knows nothing of sockets but their descriptors, nothing of signals,
// and nothing of upgrades but this: Yield gives all workers away, Config.Adopt
// and Commit take them over.
package workerset

import (
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// Defaults of a Group.
const (
	DefaultStartTimeout = 30 * time.Second
	DefaultHeartbeat    = 5 * time.Second
	DefaultHungAfter    = 30 * time.Second // and at least three heartbeats
	// DefaultRestartWindow is that of Config.MaxRestarts.
	DefaultRestartWindow = 60 * time.Second
	// termTime is what a worker gets between SIGTERM and SIGKILL.
	termTime = 2 * time.Second
	// drainGrace is what a worker gets beyond its drain timeout before SIGTERM:
	// it cuts what is left by itself, and reports that.
	drainGrace = 1500 * time.Millisecond
)

// Program is what a worker executes.
//
// Variables of the environment that concern the parent alone, such as its own
// NOTIFY_SOCKET, LISTEN_FDS and WATCHDOG_USEC, do not reach the workers, and none whose
// name begins with HANDOVER_ does.
//
// A Path makes it any program, in any language. It gets its sockets by LISTEN_FDS,
// LISTEN_PID and LISTEN_FDNAMES (sd_listen_fds(3)), a NOTIFY_SOCKET of its own
// (sd_notify(3): READY, STOPPING, WATCHDOG, STATUS), and a channel. Until it greets
// on that, as package worker does, it is foreign: it is drained by a signal, its
// channel's end means nothing, and it accepts when it likes.
type Program struct {
	Path string   // default: the image of this process
	Name string   // argv[0] of a program with a Path; default Path
	Args []string // without argv[0]; nil with the default Path: this process's own
	Env  []string // default: this process's environment at the time of each start
	Dir  string   // default: this process's working directory
	// Umask and Limits, if set, are what the process begins with. They need a Path.
	Umask  *uint32          // file mode creation mask (umask(2))
	Limits map[string]Limit // by name, such as "nofile" (setrlimit(2))
}

// Limit is a resource limit, soft and hard.
type Limit = launch.Limit

// Unlimited is no Limit.
const Unlimited = launch.Unlimited

// NodeChannel says whether a program gets NODE_CHANNEL_FD, by which Node has
// process.send and its events.
type NodeChannel int

const (
	NodeAuto NodeChannel = iota // if it is named node, or its first line says so
	NodeYes
	NodeNo
	// NodeCluster: it does, and NODE_UNIQUE_ID, which makes it a worker of Node's cluster.
	// Whatever it wants to listen on has to be one of its sockets then: its listen(port)
	// gets that, any other fails with EADDRNOTAVAIL. It is drained by cluster's own
	// message "disconnect", and when it has disconnected by DrainSignal. By default it is
	// ready when it listens.
	NodeCluster
)

// Group is a number of workers that are alike.
type Group struct {
	Name  string // a word without '/' and ':'
	Count int    // workers, at least 1
	// Program, if set, is what this group executes instead of Config.Program.
	Program *Program
	// User, if set, is who its workers run as; only root may start others as somebody
	// else. Their environment stays what it is, HOME too. A socket is theirs whoever
	// has bound it, so that port 80 is no matter. Default: this process's own.
	User *User
	// After names groups that go before: this one starts its first worker when one of
	// each of those could serve, also in a trial, and stops when those that go after it
	// have ended. Later nobody waits: while one of them is down, workers of this group
	// are replaced as ever.
	After []string
	Surge int // workers beyond Count while a group is rolled; default 1
	// Sockets are names of those in Config.Sockets; default (nil) all, and none if it is
	// empty. A worker without sockets says that it is ready by worker.Worker.Ready. In a
	// name, Slot stands for the worker's slot: "admin-{slot}" is a socket of its own for
	// each, "admin-1", "admin-2" and so on, of which there have to be enough.
	Sockets []string
	// Queues are those by which connections move between the group's workers, by the
	// name of the socket that they were accepted from: idle ones of HTTP/1 that a
	// draining worker has, which clients do not notice. They stay the caller's, like
	// Sockets. Workers of a Program with a path do not get them, and sockets of a slot's
	// own have none: nobody else serves them.
	Queues map[string]Queue
	// Tickets, if not 0, is the descriptor of a file of package tickets, by which the
	// group's workers share the keys of their TLS session tickets: see
	// worker.Worker.TLS. It stays the caller's. Workers of a Program with a path do not
	// get it.
	Tickets int
	// Home, if it is not zero, is where the group's workers report when this process has died,
	// so that the next one takes them over: see NewHome. Its ends stay the caller's. Without it
	// they drain then. Workers of a Program with a path do not get it.
	Home Home
	Args []string // appended to Program.Args
	Env  []string // appended to Program.Env; of two entries with one name the last counts
	// StartTimeout is how long a worker may take to become ready. Default 30 s.
	StartTimeout time.Duration
	// DrainTimeout is how long a drain may take before what is left is cut.
	// Default 25 s. SIGTERM and, 2 s later, SIGKILL follow if it does not help.
	DrainTimeout time.Duration
	// Ready is how it is known that a worker could serve.
	Ready Readiness
	// Recycle says when workers are replaced although nothing is wrong with them.
	Recycle Recycle
	// Burst is how many workers that served and then failed are replaced at once
	// within Per, default 60 in 60 s. Past that one is every Per/Burst, and a
	// worker that can go on after its failure does, degraded, until its turn comes:
	// a client that can make the app panic is not to stop the service.
	Burst int
	Per   time.Duration
	// MaxRestarts and RestartWindow, if set, go before those of Config.
	MaxRestarts   int
	RestartWindow time.Duration
	// KeepFailed keeps workers that say that they have failed, and could go on: nobody
	// replaces them. Each failure is logged, and an EventError. They are shown as
	// degraded. A worker that dies, or whose app has ended, is replaced as ever.
	KeepFailed bool
	// Silent: what its workers print is not passed on. Of a Program with a path it is
	// read, and its end is in the reasons of failures.
	Silent bool
	// KeepOutput makes what workers of this binary print go through this process, as it is,
	// so that Config.Printed is told of it, and its end is in the reasons of failures. As a
	// pipe is between, workers wait that print much while this process is stopped. Without
	// it they have Config.Stdout and Stderr themselves. What a Program with a path prints
	// goes this way in any case, unless it is OutputRaw.
	KeepOutput bool
	// DrainSignal asks a foreign worker to drain, unless it has said {"act":"suicide"} on
	// its channel, and so does that by itself. Default SIGTERM.
	DrainSignal syscall.Signal
	// ReopenSignal is what Reopen sends to a foreign worker; 0 is none. Others get
	// SIGUSR1.
	ReopenSignal syscall.Signal
	// NodeChannel and Offer: see there.
	NodeChannel NodeChannel
	Offer       Offer
	// Heartbeat is how often a worker that greeted says that it lives. Default 5 s.
	Heartbeat time.Duration
	// HungAfter is how long a worker may be silent that has begun to say that it
	// lives, before SIGABRT and, 2 s later, SIGKILL end it. Default 30 s; negative:
	// for ever. A foreign one finds it in WATCHDOG_USEC and counts once it has
	// sent WATCHDOG=1.
	HungAfter time.Duration
}

// Queue is the descriptors of a queue's two ends. See upgrader.Upgrader.Queue.
type Queue struct{ Give, Take int }

// Config says what a set is made of.
type Config struct {
	Name       string // of the service, shown in ps
	Program    Program
	Generation int // counts from 1; default 1
	Groups     []Group
	// Sockets are open descriptors by name: listening sockets, sockets that receive
	// packets, files. The workers inherit them under these names (LISTEN_FDNAMES).
	// They stay the caller's and have to be open as long as the set runs.
	Sockets map[string]int
	// Stdout and Stderr are the workers' descriptors 1 and 2. Default 1 and 2. Those
	// of a program that has a Path get there line by line, see Output.
	Stdout, Stderr int
	// Output is what a line of such a program looks like.
	Output Output
	// CPUs are shared out among the workers of a group as GOMAXPROCS, at least
	// one each; the lowest slots get what is left over. A worker keeps its share
	// when the group is scaled. 0 leaves GOMAXPROCS alone, and a GOMAXPROCS in
	// Group.Env goes before it.
	CPUs int
	// Trial makes Start bring up one worker in each group, ready but not
	// accepting, until Commit.
	Trial bool
	// Left are workers that a dead parent has left, to be taken over: at once, or in a trial at
	// the Commit. The set owns them. Those of this Generation and Recipe stay, others are
	// replaced.
	Left Left
	// Keep and Forget, if set, are called with descriptors of programs with a path, which do not
	// report by themselves: whoever starts another process when this one has died gives those of
	// Keep to it, which passes them to Left.Take, until it is told to forget the name. The file
	// is the set's. Both are called from the set's loop: they must not block and not call the set.
	Keep   func(name string, f *os.File)
	Forget func(name string)
	// Recipe is what this generation is made of, in a word without spaces: its workers report it
	// when this process has died. Default "".
	Recipe string
	// Grace is how long workers wait for another parent then, before they drain. Default
	// worker.DefaultGrace, 30 s.
	Grace time.Duration
	// Found, if set, is called from the set's loop with the pid of every such worker that it has
	// taken over. It must not block and not call the set.
	Found func(pid int)
	// StopDelay is how long Stop lets the workers go on serving, who are told that they
	// will stop (worker.Worker.Stopping): a load balancer in front has to notice first.
	// Default 0.
	StopDelay time.Duration
	// MaxRestarts, if set, is how many workers of a group may have to be replaced
	// within RestartWindow (default 60 s) because they ended or failed; with one more
	// the set stops, and Run returns ErrTooManyRestarts.
	MaxRestarts   int
	RestartWindow time.Duration
	// Forbear, if set, is asked before MaxRestarts ends the set: as long as it returns true
	// the set goes on, since something else is done about the failures. It is called from
	// the set's loop: it must not block and not call the set.
	Forbear func() bool
	// Started, if set, is called from the set's loop for every worker that the set has
	// started and that may serve from now on: one of a Program with a path, which
	// serves when it likes, when it is started, others not before the Commit. It must
	// not block and not call the set.
	Started func(Started)
	// Printed, if set, is told of every line that a worker prints, of those of which this
	// process sees it: Worker.Kept. It is called from several goroutines, must not block and
	// not call the set.
	Printed func(Printed)
	// Logger gets every change worth knowing. Default slog.Default().
	Logger *slog.Logger
	// Observe, if set, is called for every change of a worker's state, from the
	// set's loop: it must not block and not call the set.
	Observe func(Change)
	// Events, if set, is told what happens to the workers: see Event. It is called with
	// one after the other from a goroutine of its own, and may call the set. One that is
	// slow delays events and never the set. Run returns when it has been told all, and
	// it is not called after that.
	Events func(Event)
}

// Started is a worker's process. The files are the set's; whoever needs
// them for longer than the call copies them.
type Started struct {
	Pid          int
	Pidfd        *os.File
	Output       []*os.File // read ends of its standard output and error
	DrainSignal  syscall.Signal
	DrainTimeout time.Duration
}

// Output is a form for the lines that programs print.
type Output int

const (
	OutputPrefixed Output = iota // "web/1 | " and the line
	OutputJSON                   // an object with time, level, msg, worker and stream
	OutputRaw                    // as it is: the programs have Stdout and Stderr themselves
)
