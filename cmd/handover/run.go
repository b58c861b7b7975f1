//go:build unix

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/internal/demo"
)

const runLong = `Run a service: a parent that owns the listening sockets, and workers that serve.

Signals, to the pid that is printed at the start:
  HUP, USR2   upgrade to the program's current binary
  TERM, INT   drain and stop; a second one stops at once
  USR1        workers open their logs anew (--reopen-signal for other programs)
  TTIN, TTOU  one worker more, one less

Exit codes: 0 after an orderly stop, 1 after a failure, 2 for a bad command line or
configuration, 130 or 143 when a second INT or TERM has stopped it at once.

A worker's own pid: TERM replaces it, without any request lost.

A program, in any language, gets the listening sockets as descriptors 3 and up
(LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, as from systemd), a NOTIFY_SOCKET of its
own, and a channel (HANDOVER_CHANNEL_FD, for Node NODE_CHANNEL_FD). To drain, it is
sent --drain-signal: it is to stop accepting, finish what it has, and exit.
HANDOVER_WORKER says who it is: GROUP/SLOT/ID/GENERATION.

A Node program may also get its sockets by process.on('message', (name, server) => …)
(--offer message), or by cluster: with --node-channel cluster it is a worker of cluster,
and its listen(8080) gets the socket that is bound to that port. One that says
process.send({act: 'suicide'}) is replaced at once, and ends when it likes: it gets no
--drain-signal.

Sockets are [NAME=]NETWORK://ADDRESS with the networks tcp, udp (or tcp4, tcp6,
udp4, udp6), unix, unixgram and unixpacket. One that systemd has bound and passes
under that name (LISTEN_FDS; FileDescriptorName= in systemd.socket(5)) is taken
instead, whatever its address is, or else one that is bound to the address.

Without a program, a built-in app is served, to try things with. On udp,
unixgram and unixpacket it says who answers. On tcp and unix it speaks HTTP:
  /               who answers (also in the X-Worker header)
  /slow?ms=N      answers after N milliseconds
  /stream?ms=N    an answer that takes N milliseconds to send
  /upload         reads the body, answers its length and SHA-256
  /panic          panics in the handler: the worker is replaced
  /fail           the worker reports a failure: it is replaced
  /crash          panics outside the handler: the worker dies
  /hang           the worker stops (SIGSTOP)
  /grow?mb=N      the worker takes N MiB of memory more`

// runCommand is "handover run".
func runCommand() *cobra.Command {
	var cfg handover.Config
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] [--] [program args…]",
		Short: "Run a service with workers, and upgrade it on HUP",
		Long:  runLong,
		Example: `  handover run
  handover run --listen http=tcp://127.0.0.1:8080 --workers 4
  handover run --listen tcp://:8080 --listen dns=udp://127.0.0.1:5353
  handover run --listen tcp://:8080 -- node server.js
  handover run --listen tcp://:8080 --ready http:/healthz -- ./server --verbose
  handover run --offer message --listen server=tcp://:8080 -- node worker.js
  handover run --node-channel cluster --listen tcp://:8080 -- node server.js
  handover run --listen unix:///run/shop.sock --pid-file /run/shop.pid`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Command = args
			if err := o.apply(cmd, &cfg); err != nil {
				return &exit{2, err}
			}
			slog.SetDefault(cfg.Logger)
			if len(args) == 0 {
				cfg.Started = func(i handover.Info) { banner(os.Stdout, i) }
			}
			code, err := handover.Run(cfg, demo.App)
			if err != nil || code != 0 {
				return &exit{code, err}
			}
			return nil
		},
	}
	o.flags(cmd, &cfg)
	return cmd
}

// flags are those of "handover run".
func (o *runOptions) flags(cmd *cobra.Command, cfg *handover.Config) {
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false) // what follows the program is the program's
	f.StringVar(&cfg.Name, "name", "", "name of the service, shown in ps (default: the program's)")
	f.StringArrayVar(&cfg.Listen, "listen", nil, "socket to serve, `[NAME=]URL` with tcp://, udp://, unix://, unixgram:// or unixpacket://; may be repeated with different names (default, without a program: http=tcp://127.0.0.1:8080)")
	f.StringVar(&o.workers, "workers", "auto", "number of workers, `N|auto`; auto is one for each available CPU")
	f.IntVar(&cfg.Surge, "surge", 1, "workers beyond that number while they are rolled")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", 25*time.Second, "what a drain has not finished by then is cut")
	f.DurationVar(&cfg.StopDelay, "stop-delay", 0, "how long a stop lets the workers serve on while readiness fails, for a load balancer to notice")
	f.DurationVar(&cfg.LameDuck, "lame-duck", 5*time.Second, "how long idle connections stay open in a drain")
	f.DurationVar(&cfg.StartTimeout, "start-timeout", 30*time.Second, "how long a worker may take to become ready")
	f.DurationVar(&cfg.UpgradeTimeout, "upgrade-timeout", 60*time.Second, "how long an upgrade may take up to its commit")
	f.DurationVar(&cfg.Probation, "probation", handover.DefaultProbation, "how long a generation is watched after an upgrade; if it fails, the parent goes back to the one before; 0: none is")
	f.IntVar(&cfg.ProbationFailures, "probation-failures", handover.DefaultProbationFailures, "how many failures of its workers are allowed then, unhealthy answers included")
	f.StringVar(&cfg.Health, "health", "", "what workers are asked for every second on probation, `http:PATH`; a status below 400 means that they are well")
	f.StringVar(&o.ready, "ready", "auto", "how it is known that a worker is ready: `notify|channel|http:PATH|TIME|auto`; auto: it says so, and of a program that says nothing after 1s")
	f.DurationVar(&cfg.Heartbeat, "heartbeat", 5*time.Second, "how often workers say that they live")
	f.DurationVar(&cfg.HungAfter, "hung-after", 30*time.Second, "a worker that has said so and is silent for so long is killed; negative: never")
	f.IntVar(&cfg.MaxRestarts, "max-restarts", 0, "give up, with exit code 1, when more workers than that have to be replaced within a minute, unless there is a way back; 0: never")
	f.StringVar(&o.drainSignal, "drain-signal", "TERM", "`SIGNAL` that asks a program to drain, unless it speaks on the channel")
	f.StringVar(&o.reopenSignal, "reopen-signal", "none", "`SIGNAL` for such a program when USR1 asks to reopen logs")
	f.StringVar(&o.node, "node-channel", "auto", "whether a program gets NODE_CHANNEL_FD: `auto|yes|no|cluster`; auto: if it is named node, or its first line says so; cluster: and it is a worker of Node's cluster, whose listen(port) gets the socket of that port")
	f.StringVar(&o.offer, "offer", "none", "what brings a program its sockets, beside their descriptors: `message|none`; message: as Node's child.send(name, server) does, one message for each socket")
	f.StringVar(&o.umask, "umask", "", "file mode creation mask of a program, `OCTAL`")
	f.StringArrayVar(&o.limits, "limit", nil, "resource limit of a program, `NAME=SOFT[:HARD]`, for example nofile=65536; may be repeated")
	f.StringVar(&o.log, "log", "text", "form of the log, and of what a program prints: `text|json`")
	f.BoolVar(&o.raw, "raw-output", false, "what a program prints goes through as it is, without the worker's name")
	f.StringVar(&cfg.Control, "control", "auto", "`PATH` of the control socket, for handover status and upgrade; auto: NAME.sock in $RUNTIME_DIRECTORY, in $XDG_RUNTIME_DIR/handover, or in a directory of the user's under the temporary one, or else /dev/shm; none: there is none")
	f.StringVar(&cfg.PIDFile, "pid-file", "", "`FILE` that holds the parent's pid")
	f.BoolVar(&cfg.Anchor, "anchor", false, "a process that keeps the pid over upgrades also where NOTIFY_SOCKET is set; it tells that supervisor what the parent says")
	f.BoolVar(&cfg.NoAnchor, "no-anchor", false, "no process that keeps the pid over upgrades (there is none either where NOTIFY_SOCKET is set, and always one as PID 1)")
	f.BoolVar(&cfg.Single, "single", false, "one process, without parent and workers")
}

// banner is for the person who sees the service for the first time.
func banner(w io.Writer, i handover.Info) {
	url, curl := "", ""
	for _, l := range i.Listen {
		_, at, _ := strings.Cut(l, "=")
		if addr, ok := strings.CutPrefix(at, "tcp://"); ok && url == "" {
			url, curl = "http://"+addr+"/", "curl http://"+addr+"/"
		} else if path, ok := strings.CutPrefix(at, "unix://"); ok && url == "" {
			url, curl = at, "curl --unix-socket "+path+" http://localhost/"
		}
	}
	if url == "" && len(i.Listen) > 0 { // nothing that curl could ask
		_, url, _ = strings.Cut(i.Listen[0], "=")
	}
	noun := "workers"
	if i.Workers == 1 {
		noun = "worker"
	}
	fmt.Fprintf(w, "\n  handover serves %s with %d %s, pid %d\n\n", url, i.Workers, noun, i.Pid)
	row := func(what, effect string) { fmt.Fprintf(w, "  %-44s %s\n", what, effect) }
	if curl != "" {
		row(curl, "see who answers")
	}
	row(fmt.Sprintf("kill -HUP %d", i.Pid), "upgrade to the current binary: no client notices")
	if curl != "" {
		row(strings.TrimSuffix(curl, "/")+"/fail", "make a worker fail: it is replaced before it is gone")
	}
	row("Ctrl-C", "drain and stop (twice: at once)")
	fmt.Fprintln(w)
}
