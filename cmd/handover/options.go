//go:build unix

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/internal/console"
	"github.com/handover-go/handover/workerset"
)

// runOptions are flags of "handover run" that are not what they say yet.
type runOptions struct {
	workers, ready, drainSignal, reopenSignal, node, offer, umask, log string
	limits                                                             []string
	raw                                                                bool
	recycle                                                            recycleOptions
}

// apply makes a configuration of the flags, or says which can't work.
func (o *runOptions) apply(cmd *cobra.Command, cfg *handover.Config) (err error) {
	program := len(cfg.Command) > 0
	// In a Config 0 is the default; a person who types it means something else.
	for _, name := range []string{"surge", "drain-timeout", "lame-duck", "start-timeout", "upgrade-timeout", "heartbeat", "hung-after"} {
		if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "0hms") == "" {
			return fmt.Errorf("--%s %s: must not be 0", name, f.Value)
		}
	}
	if !program {
		for _, name := range []string{"drain-signal", "reopen-signal", "node-channel", "offer", "umask", "limit", "raw-output"} {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s is about a program, and none is given: handover run [flags] -- program args…", name)
			}
		}
		if cfg.Listen == nil {
			cfg.Listen = []string{"http=tcp://127.0.0.1:8080"}
		}
	}
	if cfg.Name == "" {
		cfg.Name = "handover"
		if program {
			cfg.Name = filepath.Base(cfg.Command[0])
		}
	}
	// What is left out of a Config is a default, and 0 is not.
	if cfg.Probation == 0 {
		cfg.Probation = -1
	}
	if cfg.ProbationFailures == 0 {
		cfg.ProbationFailures = -1
	}
	if cfg.Control == "none" {
		cfg.Control = ""
	}
	if cfg.Workers, err = parseWorkers(o.workers); err != nil {
		return err
	}
	if cfg.Ready, err = workerset.ParseReadiness(o.ready); err != nil {
		return fmt.Errorf("--ready: %w", err)
	}
	if cfg.Recycle, err = o.recycle.read(); err != nil {
		return err
	}
	p := &cfg.Program
	if p.DrainSignal, err = parseSignal(o.drainSignal); err == nil && p.DrainSignal == 0 {
		err = errNoSignal
	}
	if err != nil {
		return fmt.Errorf("--drain-signal %q: %w", o.drainSignal, err)
	}
	if p.ReopenSignal, err = parseSignal(o.reopenSignal); err != nil {
		return fmt.Errorf("--reopen-signal %q: %w", o.reopenSignal, err)
	}
	var ok bool
	nodes := map[string]workerset.NodeChannel{"auto": workerset.NodeAuto, "yes": workerset.NodeYes, "no": workerset.NodeNo, "cluster": workerset.NodeCluster}
	if p.NodeChannel, ok = nodes[o.node]; !ok {
		return fmt.Errorf("--node-channel %q: auto, yes, no or cluster", o.node)
	}
	offers := map[string]workerset.Offer{"none": workerset.OfferNone, "message": workerset.OfferMessage}
	if p.Offer, ok = offers[o.offer]; !ok {
		return fmt.Errorf("--offer %q: none or message", o.offer)
	}
	if o.umask != "" {
		n, err := strconv.ParseUint(o.umask, 8, 32)
		if err != nil || n > 0o777 {
			return fmt.Errorf("--umask %q: an octal number up to 777", o.umask)
		}
		mask := uint32(n)
		p.Umask = &mask
	}
	if p.Limits, err = parseLimits(o.limits); err != nil {
		return err
	}
	var handler slog.Handler
	switch o.log {
	case "text":
		handler = textHandler(os.Stderr)
	case "json":
		handler = slog.NewJSONHandler(os.Stderr, nil)
		p.Output = workerset.OutputJSON
	default:
		return fmt.Errorf("--log %q: text or json", o.log)
	}
	if o.raw {
		p.Output = workerset.OutputRaw
	}
	cfg.Logger = slog.New(handler)
	return nil
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

var errNoSignal = errors.New("a signal such as TERM, USR1 or 15 is needed")

// parseSignal reads TERM, SIGTERM or 15; none is 0.
func parseSignal(s string) (syscall.Signal, error) {
	if s == "none" {
		return 0, nil
	}
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, errNoSignal
}

// parseLimits reads NAME=SOFT[:HARD].
func parseLimits(list []string) (map[string]workerset.Limit, error) {
	if len(list) == 0 {
		return nil, nil
	}
	limits := map[string]workerset.Limit{}
	number := func(s string) (uint64, error) {
		if s == "unlimited" || s == "infinity" {
			return workerset.Unlimited, nil
		}
		return strconv.ParseUint(s, 10, 63)
	}
	for _, s := range list {
		name, value, _ := strings.Cut(s, "=")
		soft, hard, two := strings.Cut(value, ":")
		if !two {
			hard = soft
		}
		var l workerset.Limit
		var err, herr error
		l.Soft, err = number(soft)
		l.Hard, herr = number(hard)
		if name == "" || err != nil || herr != nil {
			return nil, fmt.Errorf("--limit %q: write it as NAME=SOFT or NAME=SOFT:HARD, numbers or unlimited, for example nofile=65536", s)
		}
		limits[name] = l
	}
	return limits, nil
}

// textHandler writes logfmt, or what a person can read, where one looks.
func textHandler(f *os.File) slog.Handler {
	if console.IsTerminal(f) {
		return console.NewHandler(f, console.Colours(os.Getenv))
	}
	return slog.NewTextHandler(f, &slog.HandlerOptions{ReplaceAttr: shortTime})
}

// shortTime leaves the date out: whoever keeps the log has its own.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
}
