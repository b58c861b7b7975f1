//go:build unix

package configfile

import (
	"slices"
	"strings"

	"github.com/handover-go/handover"
)

// Key is one thing that can be said: a key of the file, a flag of "handover run", and an
// environment variable.
type Key struct {
	Name    string // of the flag and in the file
	Usage   string // a sentence for the flag's help; `ARG` in it is what the flag wants
	Default string // as the flag has it; "": none, or one that Usage tells
	Short   string // the flag's letter, if it has one

	// Where a value of it is kept, of the service and of a group; nil: it can't be said there.
	service func(*Settings) any
	group   func(*handover.Group) any

	flagOnly  bool // not in a file
	fileOnly  bool // no flag and no variable
	inherited bool // with no place in the service: what is said there is said of each group
	program   bool // it is about a program
	noAgent   bool // what is said of the service is not said of agents
	zero      bool // 0 means something
}

// Names of keys that mean something here.
const (
	keyAgent     = "agent"
	keyCommand   = "command"
	keyDirectory = "directory"
	keyFile      = "file"
	keyGroups    = "groups"
)

type (
	svc = *Settings
	grp = *handover.Group
)

// Keys are all of them. A line here is all that a new one needs, but for its row in
// docs/configuration.md.
var Keys = []*Key{
	{Name: keyFile, Short: "f", flagOnly: true, Usage: "read what is not said by flags and HANDOVER_… variables from `FILE` (TOML), at the start and again at each upgrade",
		service: func(svc) any { return new(string) }},
	{Name: "name", Usage: "name of the service, shown in ps (default: the program's)",
		service: func(s svc) any { return &s.Name }},
	{Name: "listen", Usage: "socket to serve, `[NAME=]URL` with tcp://, udp://, unix://, unixgram:// or unixpacket://; may be repeated with different names (default, without a program: " + DefaultListen + ")",
		service: func(s svc) any { return &s.Listen }},
	{Name: keyCommand, fileOnly: true, Usage: "the program that the workers execute and its arguments, each of them a string; without one, the built-in app is served",
		service: func(s svc) any { return &s.Command }, group: func(g grp) any { return &g.Command }},
	{Name: "args", fileOnly: true, Usage: "arguments that are appended to those of the command",
		group: func(g grp) any { return &g.Args }},
	{Name: keyAgent, fileOnly: true, Usage: "it is one process that helps the others: it has no sockets, starts first and stops last",
		group: func(g grp) any { return &g.Agent }},
	{Name: "sockets", fileOnly: true, Usage: "names of those of the sockets that it gets (default: all); in a name, {slot} is the worker's slot",
		group: func(g grp) any { return &g.Sockets }},
	{Name: "after", fileOnly: true, Usage: "names of groups that serve before it starts, and stop after it",
		group: func(g grp) any { return &g.After }},
	{Name: keyDirectory, Usage: "working `DIRECTORY` of the workers; paths of unix sockets, the program, the PID file and the control socket are relative to it (default: where the service was started)",
		service: func(s svc) any { return &s.Dir }, group: func(g grp) any { return &g.Dir }},
	{Name: "user", Usage: "who the workers run as, `NAME[:GROUP]|UID:GID`; only root may start them as somebody else",
		service: func(s svc) any { return &s.User }, group: func(g grp) any { return &g.User }},
	{Name: "env", Usage: "variable for the workers' environment, `NAME=VALUE`; may be repeated",
		service: func(s svc) any { return (*environ)(&s.Env) }, group: func(g grp) any { return (*environ)(&g.Env) }},
	{Name: "workers", Default: "auto", noAgent: true, Usage: "number of workers, `N|auto`; auto is one for each available CPU",
		service: func(s svc) any { return (*workers)(&s.Workers) }, group: func(g grp) any { return &g.Workers }},
	{Name: "surge", Default: "1", Usage: "workers beyond that number while they are rolled",
		service: func(s svc) any { return &s.Surge }, group: func(g grp) any { return &g.Surge }},
	{Name: "drain-timeout", Default: "25s", Usage: "what a drain has not finished by then is cut",
		service: func(s svc) any { return &s.DrainTimeout }, group: func(g grp) any { return &g.DrainTimeout }},
	{Name: "stop-delay", Default: "0s", zero: true, Usage: "how long a stop lets the workers serve on while readiness fails, for a load balancer to notice",
		service: func(s svc) any { return &s.StopDelay }},
	{Name: "grace", Default: "30s", Usage: "how long workers of this binary serve on when the parent has died and no other one comes, before they drain",
		service: func(s svc) any { return &s.Grace }},
	{Name: "lame-duck", Default: "5s", Usage: "how long idle connections stay open in a drain",
		service: func(s svc) any { return &s.LameDuck }},
	{Name: "max-conns", Default: "0", zero: true, Usage: "how many connections of a socket a worker has at a time; at the limit it accepts none until there are fewer; not of a program's workers; 0: no limit",
		service: func(s svc) any { return &s.MaxConns }},
	{Name: "start-timeout", Default: "30s", Usage: "how long a worker may take to become ready",
		service: func(s svc) any { return &s.StartTimeout }, group: func(g grp) any { return &g.StartTimeout }},
	{Name: "upgrade-timeout", Default: "60s", Usage: "how long an upgrade may take up to its commit",
		service: func(s svc) any { return &s.UpgradeTimeout }},
	{Name: "probation", Default: "10s", Usage: "how long a generation is watched after an upgrade; if it fails, the parent goes back to the one before; 0: none is",
		service: func(s svc) any { return (*unlessZero)(&s.Probation) }},
	{Name: "probation-failures", Default: "1", Usage: "how many failures of its workers are allowed then, unhealthy answers included",
		service: func(s svc) any { return (*upTo)(&s.ProbationFailures) }},
	{Name: "health", noAgent: true, Usage: "what workers are asked for every second on probation, `http:PATH`; a status below 400 means that they are well; of a group none: it is not asked",
		service: func(s svc) any { return &s.Health }, group: func(g grp) any { return &g.Health }},
	{Name: "ready", Default: "auto", noAgent: true, zero: true, Usage: "how it is known that a worker is ready: `notify|channel|http:PATH|TIME|auto`; auto: it says so, and of a program that says nothing after 1s",
		service: func(s svc) any { return &s.Ready }, group: func(g grp) any { return &g.Ready }},
	{Name: "heartbeat", Default: "5s", Usage: "how often workers say that they live",
		service: func(s svc) any { return &s.Heartbeat }, group: func(g grp) any { return &g.Heartbeat }},
	{Name: "hung-after", Default: "30s", Usage: "a worker that has said so and is silent for so long is killed, and so is the parent, by the anchor, after 5s at the least; negative: never",
		service: func(s svc) any { return &s.HungAfter }, group: func(g grp) any { return &g.HungAfter }},
	{Name: "max-memory", noAgent: true, Usage: "replace workers that have more memory, with all that they have started: `[pss:]SIZE`, such as 512M or 1.5G; pss: what they share counts once among all (PSS, else RSS)",
		service: func(s svc) any { return (*memoryLimit)(&s.Recycle) }, group: func(g grp) any { return (*memoryLimit)(&g.Recycle) }},
	{Name: "max-age", Default: "0s", zero: true, noAgent: true, Usage: "replace workers that are older, one after the other; 0: never",
		service: func(s svc) any { return &s.Recycle.MaxAge }, group: func(g grp) any { return &g.Recycle.MaxAge }},
	{Name: "max-requests", Default: "0", zero: true, noAgent: true, Usage: "replace workers that have served so many requests; not those of a program; 0: never",
		service: func(s svc) any { return &s.Recycle.MaxRequests }, group: func(g grp) any { return &g.Recycle.MaxRequests }},
	{Name: "recycle-jitter", Default: "0.1", noAgent: true, Usage: "by which part, at most, each worker's own age and requests are less than that, so that not all reach them at the same time",
		service: func(s svc) any { return (*fraction)(&s.Recycle.Jitter) }, group: func(g grp) any { return (*fraction)(&g.Recycle.Jitter) }},
	{Name: "burst", Default: "60", Usage: "how many workers that served and then failed are replaced at once within --per; past that it is one every per/burst",
		service: func(s svc) any { return &s.Burst }, group: func(g grp) any { return &g.Burst }},
	{Name: "per", Default: "60s", Usage: "the time that --burst is about",
		service: func(s svc) any { return &s.Per }, group: func(g grp) any { return &g.Per }},
	{Name: "max-restarts", Default: "0", zero: true, Usage: "give up, with exit code 1, when more workers than that have to be replaced within --restart-window, unless there is a way back; 0: never",
		service: func(s svc) any { return &s.MaxRestarts }, group: func(g grp) any { return &g.MaxRestarts }},
	{Name: "restart-window", Default: "60s", Usage: "the time that --max-restarts is about",
		service: func(s svc) any { return &s.RestartWindow }, group: func(g grp) any { return &g.RestartWindow }},
	{Name: "keep-failed", inherited: true, Usage: "workers that say that they have failed, and could go on, are not replaced",
		group: func(g grp) any { return &g.KeepFailed }},
	{Name: "silent", inherited: true, Usage: "what the workers print is not passed on",
		group: func(g grp) any { return &g.Silent }},
	{Name: "keep-output", Usage: "what workers of a binary that links handover print goes through the parent, which remembers the end of it; of a program it does so anyway",
		service: func(s svc) any { return &s.KeepOutput }, group: func(g grp) any { return &g.KeepOutput }},
	{Name: "drain-signal", Default: "TERM", program: true, Usage: "`SIGNAL` that asks a program to drain, unless it speaks on the channel",
		service: func(s svc) any { return (*request)(&s.Program.DrainSignal) }, group: func(g grp) any { return (*request)(&g.Program.DrainSignal) }},
	{Name: "reopen-signal", Default: "none", program: true, zero: true, Usage: "`SIGNAL` for such a program when USR1 asks to reopen logs",
		service: func(s svc) any { return &s.Program.ReopenSignal }, group: func(g grp) any { return &g.Program.ReopenSignal }},
	{Name: "node-channel", Default: "auto", program: true, Usage: "whether a program gets NODE_CHANNEL_FD: `auto|yes|no|cluster`; auto: if it is named node, or its first line says so; cluster: and it is a worker of Node's cluster, whose listen(port) gets the socket of that port",
		service: func(s svc) any { return &s.Program.NodeChannel }, group: func(g grp) any { return &g.Program.NodeChannel }},
	{Name: "offer", Default: "none", program: true, Usage: "what brings a program its sockets, beside their descriptors: `message|none`; message: as Node's child.send(name, server) does, one message for each socket",
		service: func(s svc) any { return &s.Program.Offer }, group: func(g grp) any { return &g.Program.Offer }},
	{Name: "umask", program: true, Usage: "file mode creation mask of a program, `OCTAL`",
		service: func(s svc) any { return &s.Program.Umask }, group: func(g grp) any { return &g.Program.Umask }},
	{Name: "limit", program: true, Usage: "resource limit of a program, `NAME=SOFT[:HARD]`, for example nofile=65536; may be repeated",
		service: func(s svc) any { return &s.Program.Limits }, group: func(g grp) any { return &g.Program.Limits }},
	{Name: "log", Default: "text", Usage: "form of the log, and of what a program prints: `text|json`",
		service: func(s svc) any { return (*form)(&s.Log) }},
	{Name: "raw-output", program: true, Usage: "what a program prints goes through as it is, without the worker's name",
		service: func(s svc) any { return &s.RawOutput }},
	{Name: "control", Default: "auto", Usage: "`PATH` of the control socket, for handover status and upgrade; auto: NAME.sock in $RUNTIME_DIRECTORY, in $XDG_RUNTIME_DIR/handover, or in a directory of the user's under the temporary one, or else /dev/shm; none: there is none",
		service: func(s svc) any { return (*optional)(&s.Control) }},
	{Name: "control-group", Usage: "`GROUP` whose members may read on the control socket, and not act",
		service: func(s svc) any { return &s.ControlGroup }},
	{Name: "status-listen", Usage: "`URL`, tcp://HOST:PORT, where everybody who reaches it may ask for /v1/status, /v1/ready and /metrics, and nothing else",
		service: func(s svc) any { return &s.StatusListen }},
	{Name: "pid-file", Usage: "`FILE` that holds the parent's pid",
		service: func(s svc) any { return &s.PIDFile }},
	{Name: "anchor", Usage: "a process that keeps the pid over upgrades also where NOTIFY_SOCKET is set; it tells that supervisor what the parent says",
		service: func(s svc) any { return &s.Anchor }},
	{Name: "no-anchor", Usage: "no process that keeps the pid over upgrades (there is none either where NOTIFY_SOCKET is set, and always one as PID 1)",
		service: func(s svc) any { return &s.NoAnchor }},
	{Name: "single", Usage: "one process, without parent and workers",
		service: func(s svc) any { return &s.Single }},
}

// Flag reports whether the key is a flag, too.
func (k *Key) Flag() bool { return !k.fileOnly }

// Type is a word for the kind of value that the flag wants.
func (k *Key) Type() string { return k.kind().name }

// kind is that of its values where the service says it.
func (k *Key) kind() *kind { return k.in("") }

// in is the kind of its values in a group, or "" for the service.
func (k *Key) in(group string) *kind {
	if k.group != nil && (group != "" || k.service == nil) {
		return kindOf(k.group(&handover.Group{}))
	}
	return kindOf(k.service(&Settings{}))
}

func keyNamed(name string) *Key {
	i := slices.IndexFunc(Keys, func(k *Key) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return Keys[i]
}

// fieldKey is the key that sets a field of handover.Config or handover.Group, or of what the
// worker set makes of it.
func fieldKey(field string) *Key {
	switch field {
	case "Dir":
		return keyNamed(keyDirectory)
	case "Limits":
		return keyNamed("limit")
	case "Count":
		return keyNamed("workers")
	case "Path":
		return keyNamed(keyCommand)
	case "Jitter":
		return keyNamed("recycle-jitter")
	}
	i := slices.IndexFunc(Keys, func(k *Key) bool { return strings.EqualFold(strings.ReplaceAll(k.Name, "-", ""), field) })
	if i < 0 {
		return nil
	}
	return Keys[i]
}

// meant is a hint at the key that a wrong name may stand for.
func meant(name string, group bool) string {
	k := closest(name, func(k *Key) bool { return !k.flagOnly && (group && k.group != nil || !group) })
	if k == nil {
		return ""
	}
	return ": did you mean " + k.Name + "?"
}

// closest is the key whose name differs by little, or nil.
func closest(name string, among func(*Key) bool) (found *Key) {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	best := 2 + len(name)/8
	for _, k := range Keys {
		if d := distance(name, k.Name); among(k) && d < best {
			found, best = k, d
		}
	}
	return found
}

// distance is how many letters have to be changed, added, left out or swapped with the next.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range b {
		rows[0][j+1] = j + 1
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j-1]+change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
