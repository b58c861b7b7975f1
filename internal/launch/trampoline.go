package launch

import (
	"encoding/json"
	"fmt"
	"os"
)

// Prepare is what has to be done in a process itself before it executes its
// program. Nobody can do it from outside, so that this program is executed first,
// does it, and executes the other one in its place (the trampoline): the pid stays
// the same.
type Prepare struct {
	// PidVars are environment variables that are to hold the new process's pid, as
	// LISTEN_PID (sd_listen_fds(3)) and WATCHDOG_PID are.
	PidVars []string `json:"pidVars,omitempty"`
	// Umask, if set, is the file mode creation mask (umask(2)).
	Umask *uint32 `json:"umask,omitempty"`
	// Limits are resource limits by name, as in LimitNames (setrlimit(2)).
	Limits map[string]Limit `json:"limits,omitempty"`
	// User, if set, is who to be, from after the limits on, which only root may raise.
	User *User `json:"user,omitempty"`
}

// Limit is a resource limit: soft and hard. Unlimited is no limit.
type Limit struct{ Soft, Hard uint64 }

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// envPrepare holds, for the trampoline, what to do and what to execute.
const envPrepare = "HANDOVER_EXEC"

type trampoline struct {
	Path string `json:"path"`
	Prepare
}

// through makes the spec execute p's program by way of the trampoline.
func (s Spec) through(p Prepare) (Spec, error) {
	b, err := json.Marshal(trampoline{s.Path, p})
	if err != nil {
		return s, err
	}
	s.Env = append(s.Env[:len(s.Env):len(s.Env)], envPrepare+"="+string(b))
	s.Path = Self
	return s, nil
}

// exitNotExecuted and exitNotFound are what a shell says in these cases.
const (
	exitNotExecuted = 126
	exitNotFound    = 127
)

// Before anything else in this program: it is not to see a process that is
// another program's in a moment.
func init() {
	v, ok := os.LookupEnv(envPrepare)
	if !ok {
		return
	}
	os.Unsetenv(envPrepare)
	var t trampoline
	err := json.Unmarshal([]byte(v), &t)
	code := exitNotExecuted
	if err == nil {
		code, err = t.jump()
	}
	fmt.Fprintf(os.Stderr, "handover: %v\n", err)
	os.Exit(code)
}
