//go:build unix

package configfile

import (
	"slices"
	"strings"
)

// envPrefix begins the names of all variables that are flags, and of the toolkit's own.
const envPrefix = "HANDOVER_"

// Env is the environment variable that says the same as the key.
func (k *Key) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_"))
}

// ownVariables are those by which the toolkit's processes know who they are. None is a flag's.
var ownVariables = []string{
	"HANDOVER_ROLE", "HANDOVER_TERMINAL", "HANDOVER_TICKETS_FD", "HANDOVER_HOME", "HANDOVER_RECIPE", "HANDOVER_GRACE_MS", "HANDOVER_HUNG_MS", "HANDOVER_BACK", "HANDOVER_SOURCE", "HANDOVER_WORKER", "HANDOVER_CHANNEL_FD", "HANDOVER_ACCEPT", "HANDOVER_CRASH_FD",
	"HANDOVER_HEARTBEAT_MS", "HANDOVER_KEEP", "HANDOVER_QUEUES", "HANDOVER_SUCCESSION_FD", "HANDOVER_ATTEMPT",
	"HANDOVER_ANCHOR_PID", "HANDOVER_ANCHOR_ENV", "HANDOVER_ANCHOR_STATE", "HANDOVER_ARGV0", "HANDOVER_EXEC",
}

// readEnviron takes what the environment says. A variable with that prefix that is neither a
// flag's nor the toolkit's is an error where a person has started the service: in other
// processes, and below a worker, it may be one of a version that this one does not know.
func (r *Result) readEnviron(environ []string) (errs Errors) {
	values := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && value != "" && strings.HasPrefix(name, envPrefix) {
			values[name] = value
		}
	}
	for _, k := range Keys {
		if v, ok := values[k.Env()]; ok && !k.fileOnly {
			r.override(k, said{k.kind().split(v), place{name: k.Env()}})
			delete(values, k.Env())
		}
	}
	for _, name := range ownVariables {
		if _, ok := values[name]; ok {
			return nil
		}
	}
	for name := range values {
		key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
		near := ""
		if k := closest(key, func(k *Key) bool { return !k.fileOnly }); k != nil {
			near = ": did you mean " + k.Env() + "?"
		}
		errs = append(errs, Error{at: place{name: name}, why: " is no variable of handover" + near})
	}
	slices.SortFunc(errs, func(a, b Error) int { return strings.Compare(a.at.name, b.at.name) })
	return errs
}
