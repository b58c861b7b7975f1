//go:build unix

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
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

A worker's own pid: TERM replaces it, without any request lost.

Sockets are [NAME=]NETWORK://ADDRESS with the networks tcp, udp (or tcp4, tcp6,
udp4, udp6), unix, unixgram and unixpacket. One that systemd has bound and passes
under that name (LISTEN_FDS; FileDescriptorName= in systemd.socket(5)) is taken
instead, whatever its address is, or else one that is bound to the address.

Without a program to run, a built-in app is served, to try things with. On udp,
unixgram and unixpacket it says who answers. On tcp and unix it speaks HTTP:
  /               who answers (also in the X-Worker header)
  /slow?ms=N      answers after N milliseconds
  /stream?ms=N    an answer that takes N milliseconds to send
  /upload         reads the body, answers its length and SHA-256
  /panic          panics in the handler: the worker is replaced
  /fail           the worker reports a failure: it is replaced
  /crash          panics outside the handler: the worker dies
  /hang           the worker stops (SIGSTOP)`

// runCommand is "handover run".
func runCommand() *cobra.Command {
	cfg := handover.Config{Name: "handover"}
	var workers string
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Run a service with workers, and upgrade it on HUP",
		Long:  runLong,
		Example: `  handover run
  handover run --listen http=tcp://127.0.0.1:8080 --workers 4
  handover run --listen unix:///run/shop.sock --pid-file /run/shop.pid
  handover run --listen tcp://:8080 --listen dns=udp://127.0.0.1:5353`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if cfg.Workers, err = parseWorkers(workers); err != nil {
				return &exit{2, err}
			}
			cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: shortTime}))
			slog.SetDefault(cfg.Logger)
			cfg.Started = func(i handover.Info) { banner(os.Stdout, i) }
			code, err := handover.Run(cfg, demo.App)
			if err != nil || code != 0 {
				return &exit{code, err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&cfg.Name, "name", cfg.Name, "name of the service, shown in ps")
	f.StringArrayVar(&cfg.Listen, "listen", []string{"http=tcp://127.0.0.1:8080"}, "socket to serve, `[NAME=]URL` with tcp://, udp://, unix://, unixgram:// or unixpacket://; may be repeated with different names")
	f.StringVar(&workers, "workers", "auto", "number of workers, `N|auto`; auto is one for each available CPU")
	f.IntVar(&cfg.Surge, "surge", 1, "workers beyond that number while they are rolled")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", 25*time.Second, "what a drain has not finished by then is cut")
	f.DurationVar(&cfg.LameDuck, "lame-duck", 5*time.Second, "how long idle connections stay open in a drain")
	f.DurationVar(&cfg.StartTimeout, "start-timeout", 30*time.Second, "how long a worker may take to become ready")
	f.DurationVar(&cfg.UpgradeTimeout, "upgrade-timeout", 60*time.Second, "how long an upgrade may take up to its commit")
	f.StringVar(&cfg.PIDFile, "pid-file", "", "`FILE` that holds the parent's pid")
	f.BoolVar(&cfg.NoAnchor, "no-anchor", false, "no process that keeps the pid over upgrades (there is none either where NOTIFY_SOCKET is set)")
	f.BoolVar(&cfg.Single, "single", false, "one process, without parent and workers")
	return cmd
}

func parseWorkers(s string) (int, error) {
	if s == "auto" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("--workers %q: a number from 1, or auto", s)
	}
	return n, nil
}

// shortTime leaves the date out: whoever keeps the log has its own.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
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
