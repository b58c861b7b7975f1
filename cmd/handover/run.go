//go:build unix

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

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

With -f, what no flag says is read from a file, in TOML: a flag's name is its key, and
[groups.NAME] a group of workers of its own. An upgrade reads it anew; if it is wrong,
nothing changes. Between flags and file are the variables HANDOVER_LISTEN,
HANDOVER_DRAIN_TIMEOUT and so on, one for each flag. handover check shows what is in
effect, and docs/configuration.md has all of it.

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
	var flags runFlags
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
  handover run --listen unix:///run/shop.sock --pid-file /run/shop.pid
  handover run -f /etc/shop/handover.toml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			findTerminal()
			s, err := flags.settings(args)
			if err != nil {
				return &exit{2, err}
			}
			cfg := s.Config
			cfg.Logger = newLogger(s.Log)
			slog.SetDefault(cfg.Logger)
			if !s.HasProgram() {
				cfg.Started = func(i handover.Info) { banner(os.Stdout, i) }
				cfg.KeepOutput = true
			}
			tell(s, &cfg)
			code, err := handover.Run(cfg, demo.App)
			if err != nil || code != 0 {
				return &exit{code, s.Explain(err)}
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	return cmd
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
