package draintest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// Config says what is tested. Load.Addr and Action are needed.
type Config struct {
	// Load are the clients. WaitReady is 30 s by default, and Clients are one New, Slow,
	// Upload, Stream and KeepAlive. A server that does not know of package load is Plain.
	Load load.Config

	// Command, if set, is the program and its arguments. It is started, looked up in PATH,
	// in a process group of its own, and stopped at the end.
	Command []string
	Dir     string    // where it is started. Default: here
	Env     []string  // added to this process's environment, "NAME=value"
	Output  io.Writer // gets what it prints. Default: nobody

	// PIDFile, if set, is a file that holds the pid of the server's main process, and may
	// change. Without it that is the program, or what it leaves in its place.
	PIDFile string

	// Action is what is done in each round, for example Signal(syscall.SIGHUP).
	Action Action

	// Rounds is how often. Default 5.
	Rounds int

	// Every is the shortest time from one round to the next. Default 2 s.
	Every time.Duration

	// Settle is how long a round may take to change the server's process, to end the old
	// one, and to have every kind of client answered again. Default 30 s. When it was not
	// enough for one round, the others get 5 s at most.
	Settle time.Duration

	// MaxFailed is how many requests may fail, and MaxClosedIdle how many idle connections
	// may be closed. Default 0, which is what the test is for. Negative is any number.
	MaxFailed, MaxClosedIdle int

	// MaxBehind is how late a client may begin a request because this machine is too busy.
	// More than that is a hole in the load, and no Pass. Default 500 ms.
	MaxBehind time.Duration

	// Proxied says that the address is that of something in front of the server. Otherwise
	// one of the server's processes has to have the socket that listens there.
	Proxied bool

	// Unchanged is for an action that changes no process.
	Unchanged bool

	// Progress, if set, is told how it goes, some times a second.
	Progress func(Progress)
}

// Defaults of Config.
const (
	DefaultRounds    = 5
	DefaultEvery     = 2 * time.Second
	DefaultSettle    = 30 * time.Second
	DefaultWaitReady = 30 * time.Second
	DefaultMaxBehind = 500 * time.Millisecond
)

// ErrConfig is wrapped by the errors about a Config.
var ErrConfig = errors.New("draintest: bad configuration")

// Progress is where a test is.
type Progress struct {
	Elapsed    time.Duration // since the load began
	Round      int           // 0 before the first one
	Rounds     int
	Rate       float64 // good answers a second, of the last second
	Answered   int     // good answers
	Failed     int
	ClosedIdle int
	Worker     string // X-Worker of the last answer
	Processes  int    // of the server's, alive
}

func (c Config) withDefaults() Config {
	c.Rounds = cmp.Or(c.Rounds, DefaultRounds)
	c.Every = cmp.Or(c.Every, DefaultEvery)
	c.Settle = cmp.Or(c.Settle, DefaultSettle)
	c.MaxBehind = cmp.Or(c.MaxBehind, DefaultMaxBehind)
	c.Load.WaitReady = cmp.Or(c.Load.WaitReady, DefaultWaitReady)
	if len(c.Load.Clients) == 0 {
		c.Load.Clients = map[load.Kind]int{load.New: 1, load.Slow: 1, load.Upload: 1, load.Stream: 1, load.KeepAlive: 1}
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	return c
}

// addrs are where clients connect to, but for those of kinds Unix and UDP.
func (c Config) addrs() []string {
	all := map[string]bool{}
	for k, n := range c.Load.Clients {
		if n > 0 && k != load.Unix && k != load.UDP {
			all[cmp.Or(c.Load.Addrs[k], c.Load.Addr)] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Validate says everything that is wrong with the configuration, before anything is
// started.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if err := c.Load.Validate(); err != nil {
		fault("%w", err)
	}
	if c.Load.Observe != nil {
		fault("Load.Observe: the test needs it itself")
	}
	if c.Load.MaxRequests != 0 {
		fault("Load.MaxRequests: %d: the load has to last for all rounds", c.Load.MaxRequests)
	}
	if len(c.Command) > 0 && c.Command[0] == "" {
		fault("Command: no program")
	}
	if c.Action.name == "" {
		fault("Action: none: a test in which nothing happens proves nothing")
	}
	if c.Action.needsPID && len(c.Command) == 0 && c.PIDFile == "" {
		fault("Action: %s: of which process? Set Command or PIDFile", c.Action)
	}
	if c.Action.kill && slices.ContainsFunc(c.addrs(), func(addr string) bool { return strings.HasPrefix(addr, "unix:") }) {
		fault("Action: %s: who has which connection of a unix socket can't be seen", c.Action)
	}
	for _, k := range []load.Kind{load.Unix, load.UDP} {
		if c.Action.kill && c.Load.Clients[k] > 0 {
			fault("Action: %s: clients of kind %v can't be excused of what is lost with it", c.Action, k)
		}
	}
	if c.Rounds < 1 {
		fault("Rounds: %d: at least 1 is needed", c.Rounds)
	}
	for name, d := range map[string]time.Duration{"Every": c.Every, "Settle": c.Settle, "MaxBehind": c.MaxBehind} {
		if d < 0 {
			fault("%s: %v: can't be negative", name, d)
		}
	}
	return errors.Join(errs...)
}
