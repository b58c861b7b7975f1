//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/draintest"
	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/console"
)

const draintestLong = `Test that no client notices when a server is restarted: any server, in any language.

The program is started, or found with --url and --pid-file, and loaded by strict
clients, which never try again. In each round the action is done to it; then another
process has to serve, the old one to end, and every kind of client to be answered.
Nothing may fail, and no idle connection may be closed.

  handover draintest --url http://127.0.0.1:8080/ --signal HUP -- ./shop --listen 127.0.0.1:8080
  handover draintest --url http://127.0.0.1/ --pid-file /run/nginx.pid --action 'nginx -s reload'

Clients are of the kinds
  new         a connection for each request
  keepalive   a connection for all requests, used again after a pause
  slow        a request that is in flight for a while (--slow-path; {ms} is how long)
  upload      a body that is sent in pieces (--upload-path)
  stream      a long answer (--stream-path; {ms} is how long)
  http2       HTTP/2 on one connection (--http2, --http2-path): over TLS, or by prior knowledge
  websocket   messages that a server has to send back (--websocket-path)
  unix        a connection for each request, to a unix socket (--unix)
  connect     a connection on which nothing is sent: for servers of any protocol
  grpc        calls on one HTTP/2 connection, by default of gRPC's health service (--grpc, --grpc-path)
  tcp         lines that a server has to send back, on one connection (--tcp)
  udp         datagrams that a server has to send back (--udp); one that is lost has failed
By default there are new and keepalive, and those that a flag names; without --url only the
latter, if --grpc, --tcp or --udp is one of them. Each client sends --rate requests a second;
those that keep their connection can have other pauses (--think).

Exit codes: 0 passed, 1 failed, 2 not tested: a bad command line, no server, no
requests, a load that could not keep its rate, or an action that can't be seen to have
done anything.`

func draintestCommand() *cobra.Command {
	o := draintestOptions{paths: map[load.Kind]*string{}, addrs: map[load.Kind]*string{}}
	for _, k := range []load.Kind{load.Slow, load.Upload, load.Stream, load.HTTP2, load.WebSocket, load.GRPC} {
		o.paths[k] = new(string)
	}
	for _, k := range ownAddr {
		o.addrs[k] = new(string)
	}
	var cfg draintest.Config
	cmd := &cobra.Command{
		Use: "draintest [flags] [-- program args…]",
		Example: `  handover draintest --rounds 2 --url http://127.0.0.1:8080/ -- handover run
  handover draintest --url http://127.0.0.1:8080/ --pid-file /run/shop.pid --action 'handover restart'`,
		Short: "Test that no client notices when a server is restarted",
		Long:  draintestLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := misplaced(args, cmd.ArgsLenAtDash()); err != nil {
				return &exit{2, err}
			}
			cfg.Command = args
			if err := o.apply(cmd, &cfg); err != nil {
				return &exit{2, err}
			}
			return o.run(cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "http://127.0.0.1:8080/", "what new and keepalive clients ask for")
	f.StringVar(&o.socket, "socket", "", "path of a unix socket to connect to, instead of the URL's host; as --url unix:///PATH:/ does")
	f.StringVar(&o.caFile, "ca-file", "", "certificates (PEM) to trust in a server of https, instead of the system's")
	f.BoolVar(&o.insecure, "insecure", false, "trust any certificate of a server of https")
	f.StringVar(&o.host, "host", "", "Host header (default: the URL's)")
	f.StringVar(&cfg.PIDFile, "pid-file", "", "file that holds the pid of the server's main process")
	f.StringVar(&o.signal, "signal", "", "the action: a signal to the main process (default HUP)")
	f.StringVar(&o.action, "action", "", "the action: a shell command, with the main process in DRAINTEST_PID")
	f.BoolVar(&o.killWorker, "kill-worker", false, "the action: kill -9 of a process that serves; what it had is excused")
	f.IntVar(&cfg.Rounds, "rounds", draintest.DefaultRounds, "how often the action is done")
	f.DurationVar(&cfg.Every, "every", draintest.DefaultEvery, "shortest time from one round to the next")
	f.DurationVar(&cfg.Settle, "settle", draintest.DefaultSettle, "how long a round may take")
	f.BoolVar(&cfg.Unchanged, "unchanged", false, "the action changes no process")
	f.BoolVar(&cfg.Proxied, "proxied", false, "the URL is that of a proxy in front of the server")
	f.StringSliceVar(&o.kinds, "kinds", nil, "kinds of clients")
	f.StringVar(o.paths[load.Slow], "slow-path", "", "what slow clients ask for")
	f.StringVar(o.paths[load.Upload], "upload-path", "", "what upload clients post to")
	f.StringVar(o.paths[load.Stream], "stream-path", "", "what stream clients ask for")
	f.BoolVar(&o.http2, "http2", false, "clients of HTTP/2, too, that ask for the URL")
	f.StringVar(o.paths[load.HTTP2], "http2-path", "", "what clients of HTTP/2 ask for, if it is not the URL")
	f.StringVar(o.paths[load.WebSocket], "websocket-path", "", "where a WebSocket sends messages back as they are")
	f.StringVar(o.addrs[load.GRPC], "grpc", "", "address of a gRPC server, host:port or unix:/path; by TLS if the URL is one of https")
	f.StringVar(o.paths[load.GRPC], "grpc-path", "", "what clients of gRPC call, with an empty message (default: /grpc.health.v1.Health/Check)")
	f.StringVar(o.addrs[load.TCP], "tcp", "", "address of a server that sends lines back, or bytes, host:port or unix:/path")
	f.StringVar(o.addrs[load.UDP], "udp", "", "address of a server that sends datagrams back, host:port")
	f.StringVar(&cfg.Load.Unix, "unix", "", "path of a unix socket to ask for the URL, beside the URL's host")
	f.DurationVar(&o.slow, "slow", 300*time.Millisecond, "how long slow requests take: {ms} of their path")
	f.DurationVar(&o.stream, "stream", 300*time.Millisecond, "how long streams take: {ms} of their path")
	f.DurationVar(&o.upload, "upload", 300*time.Millisecond, "how long uploads take")
	f.DurationVar(&cfg.MaxBehind, "max-behind", draintest.DefaultMaxBehind, "how late this machine may be with a request")
	f.IntVar(&o.clients, "clients", 4, "clients of each kind")
	f.Float64Var(&cfg.Load.Rate, "rate", 20, "requests a second of each client")
	f.DurationSliceVar(&cfg.Load.Think, "think", nil, "time between two requests of clients that keep their connection, by turns: 50ms,2s (default: as --rate says)")
	f.DurationVar(&cfg.Load.Timeout, "timeout", 30*time.Second, "time for one request")
	f.DurationVar(&cfg.Load.WaitReady, "wait-ready", draintest.DefaultWaitReady, "how long the server may take to answer at first")
	f.IntVar(&cfg.Load.Status, "status", http.StatusOK, "status of all answers")
	f.StringArrayVar(&o.headers, "header", nil, `header of all requests, "Name: value"`)
	f.StringVar(&cfg.Load.WorkerHeader, "worker-header", "X-Worker", "header of answers that says which process it is")
	f.BoolVar(&o.ids, "ids", false, "answers have to repeat X-Request-Id, and an upload's to say its length and SHA-256")
	f.IntVar(&cfg.MaxFailed, "allow-failed", 0, "how many requests may fail; -1: any number")
	f.IntVar(&cfg.MaxClosedIdle, "allow-closed-idle", 0, "how many idle connections may be closed; -1: any number")
	f.StringVar(&o.jsonFile, "json", "", "write the report to this file, as JSON")
	f.StringVar(&o.junitFile, "junit", "", "write the report to this file, as JUnit's XML")
	f.StringVar(&o.htmlFile, "html", "", "write the report to this file, as a page to look at")
	f.BoolVar(&o.output, "output", false, "show what the program prints as it does (default: its last lines, unless it passes)")
	f.BoolVar(&o.quiet, "quiet", false, "no progress")
	return cmd
}

// run tests, and tells.
func (o *draintestOptions) run(cfg draintest.Config) error {
	// What can't be written is known before the test.
	for _, name := range []string{o.jsonFile, o.junitFile, o.htmlFile} {
		if name == "" {
			continue
		}
		// An old one is not to be taken for this test's.
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return &exit{2, err}
		}
		f.Close()
	}
	// A closed terminal, or a reader that has gone, is no reason to leave a server behind.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	defer stop()
	var printed lastLines
	cfg.Output = &printed
	if o.output {
		cfg.Output = os.Stderr
	}
	line := &liveLine{w: os.Stderr, tty: console.IsTerminal(os.Stderr)}
	if !o.quiet {
		cfg.Progress = line.show
	}
	r, err := draintest.Test(ctx, cfg)
	line.end()
	if err != nil {
		printed.show(os.Stderr)
		return &exit{2, o.hint(err)}
	}
	if r.Verdict() != draintest.Pass {
		printed.show(os.Stderr)
	}
	fmt.Println(r)
	if err := o.write(r); err != nil {
		return &exit{2, err}
	}
	switch r.Verdict() {
	case draintest.Pass:
		return nil
	case draintest.Fail:
		return &exit{code: 1}
	}
	return &exit{code: 2}
}

// write writes the files that are wanted.
func (o *draintestOptions) write(r *draintest.Report) error {
	var errs []error
	file := func(name string, content func(io.Writer) error) {
		if name == "" {
			return
		}
		var b bytes.Buffer
		err := content(&b)
		if err == nil {
			err = os.WriteFile(name, b.Bytes(), 0o644)
		}
		errs = append(errs, err)
	}
	file(o.jsonFile, func(w io.Writer) error { return json.NewEncoder(w).Encode(r) })
	file(o.junitFile, r.WriteJUnit)
	file(o.htmlFile, r.WriteHTML)
	return errors.Join(errs...)
}
