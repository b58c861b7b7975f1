//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/draintest"
	"github.com/handover-go/handover/draintest/load"
)

const draintestLong = `Test that no client notices when a server is restarted: any server, in any language.

The program is started, or found with --url and --pid-file, and loaded by strict
clients, which never try again. In each round the action is done to it; then another
process has to serve, the old one to end, and every kind of client to be answered.
Nothing may fail, and no idle connection may be closed.

  handover draintest --signal HUP -- ./shop --listen 127.0.0.1:8080
  handover draintest --url http://127.0.0.1/ --pid-file /run/nginx.pid --action 'nginx -s reload'

Clients are of the kinds
  new         a connection for each request
  keepalive   a connection for all requests, used again after a pause
  slow        a request that is in flight for a while (--slow-path; {ms} is how long)
  upload      a body that is sent in pieces (--upload-path)
  stream      a long answer (--stream-path; {ms} is how long)
  connect     a connection on which nothing is sent: for servers of any protocol
By default there are new and keepalive, and those that have a path.

Exit codes: 0 passed, 1 failed, 2 not tested: a bad command line, no server, no
requests, a machine too busy for the load, or an action that can't be seen to have
done anything.`

// draintestOptions are flags of "handover draintest".
type draintestOptions struct {
	url, socket, host              string
	signal, action                 string
	killWorker, ids, quiet, output bool
	kinds                          []string
	paths                          map[load.Kind]*string
	headers                        []string
	clients                        int
	slow, stream, upload           time.Duration
	jsonFile, junitFile, htmlFile  string
}

func draintestCommand() *cobra.Command {
	o := draintestOptions{paths: map[load.Kind]*string{load.Slow: new(string), load.Upload: new(string), load.Stream: new(string)}}
	var cfg draintest.Config
	cmd := &cobra.Command{
		Use:   "draintest [flags] [-- program args…]",
		Short: "Test that no client notices when a server is restarted",
		Long:  draintestLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Command = args
			if err := o.apply(cmd, &cfg); err != nil {
				return &exit{2, err}
			}
			return o.run(cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "http://127.0.0.1:8080/", "what new and keepalive clients ask for")
	f.StringVar(&o.socket, "socket", "", "path of a unix socket to connect to, instead of the URL's host")
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
	f.DurationVar(&o.slow, "slow", 300*time.Millisecond, "how long slow requests take: {ms} of their path")
	f.DurationVar(&o.stream, "stream", 300*time.Millisecond, "how long streams take: {ms} of their path")
	f.DurationVar(&o.upload, "upload", 300*time.Millisecond, "how long uploads take")
	f.DurationVar(&cfg.MaxBehind, "max-behind", draintest.DefaultMaxBehind, "how late this machine may be with a request")
	f.IntVar(&o.clients, "clients", 4, "clients of each kind")
	f.Float64Var(&cfg.Load.Rate, "rate", 20, "requests a second of each client")
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

// apply makes a configuration of the flags, or says which can't work.
func (o *draintestOptions) apply(cmd *cobra.Command, cfg *draintest.Config) error {
	changed := cmd.Flags().Changed
	// In a Config 0 is the default; a person who types it means something else.
	for _, name := range []string{"every", "settle", "rate", "timeout", "wait-ready", "max-behind", "slow", "stream", "upload", "status"} {
		if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "0.hms") == "" {
			return fmt.Errorf("--%s %s: must not be 0", name, f.Value)
		}
	}
	if len(cfg.Command) == 0 && !changed("url") && !changed("socket") {
		return errors.New("nothing to test: give a program (handover draintest [flags] -- program args…), or the --url of one that runs")
	}
	u, err := url.Parse(o.url)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("--url %q: want http://host:port/path", o.url)
	}
	if len(cfg.Command) == 0 && cfg.PIDFile == "" && o.action == "" {
		return errors.New("to which process? Give its --pid-file, or a shell command with --action")
	}
	if cfg.Rounds < 1 {
		return fmt.Errorf("--rounds %d: at least 1 is needed", cfg.Rounds)
	}
	l := &cfg.Load
	l.Addr, l.Host = u.Host, cmp.Or(o.host, u.Host)
	if u.Port() == "" {
		l.Addr += ":80"
	}
	if o.socket != "" {
		l.Addr = "unix:" + o.socket
	}
	l.Plain = !o.ids
	l.Path = map[load.Kind]string{load.New: u.RequestURI(), load.KeepAlive: u.RequestURI()}
	if err := o.applyKinds(l); err != nil {
		return err
	}
	l.SlowMS, l.StreamMS, l.UploadMS = int(o.slow.Milliseconds()), int(o.stream.Milliseconds()), int(o.upload.Milliseconds())
	l.Header = http.Header{}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf(`--header %q: want "Name: value"`, h)
		}
		l.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if cfg.Action, err = o.theAction(); err != nil {
		return err
	}
	return cfg.Validate()
}

// applyKinds says how many clients there are of each kind.
func (o *draintestOptions) applyKinds(l *load.Config) error {
	l.Clients = map[load.Kind]int{}
	all := []load.Kind{load.New, load.KeepAlive, load.Slow, load.Upload, load.Stream, load.Connect}
	names := o.kinds
	if len(names) == 0 {
		names = []string{load.New.String(), load.KeepAlive.String()}
		for kind, path := range o.paths {
			if *path != "" {
				names = append(names, kind.String())
			}
		}
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(k load.Kind) bool { return k.String() == name })
		if i < 0 {
			return fmt.Errorf("--kinds %s: no such kind: want %v", name, all)
		}
		l.Clients[all[i]] = o.clients
	}
	for kind, path := range o.paths {
		if *path != "" {
			l.Path[kind] = *path
			if l.Clients[kind] == 0 {
				return fmt.Errorf("--%v-path: there are no clients of that kind: see --kinds", kind)
			}
		}
	}
	return nil
}

func (o *draintestOptions) theAction() (draintest.Action, error) {
	var list []draintest.Action
	if o.action != "" {
		list = append(list, draintest.Shell(o.action))
	}
	if o.killWorker {
		list = append(list, draintest.KillWorker())
	}
	if o.signal != "" || len(list) == 0 {
		sig, err := draintest.ParseSignal(cmp.Or(o.signal, "HUP"))
		if err != nil {
			return draintest.Action{}, err
		}
		list = append(list, draintest.Signal(sig))
	}
	if len(list) > 1 {
		return draintest.Action{}, errors.New("--signal, --action, --kill-worker: one action a test")
	}
	return list[0], nil
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
	line := &liveLine{w: os.Stderr, tty: isTerminal(os.Stderr)}
	if !o.quiet {
		cfg.Progress = line.show
	}
	r, err := draintest.Test(ctx, cfg)
	line.end()
	if err != nil {
		printed.show(os.Stderr)
		return &exit{2, err}
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

// liveLine is one line that says how it goes: again and again in its place on a terminal,
// and once a round elsewhere.
type liveLine struct {
	w     io.Writer
	tty   bool
	round int
	shown bool
}

func (l *liveLine) show(p draintest.Progress) {
	text := fmt.Sprintf("%5.1fs  round %d of %d  %.0f/s  %d answered  %d failed  %d closed idle",
		p.Elapsed.Seconds(), p.Round, p.Rounds, p.Rate, p.Answered, p.Failed, p.ClosedIdle)
	if p.Processes > 0 {
		text += fmt.Sprintf("  %d processes", p.Processes)
	}
	if p.Worker != "" {
		text += "  " + p.Worker
	}
	switch {
	case l.tty:
		fmt.Fprintf(l.w, "\r\x1b[K%s", text) // ECMA-48, EL
		l.shown = true
	case p.Round != l.round:
		l.round = p.Round
		fmt.Fprintln(l.w, text)
	}
}

func (l *liveLine) end() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// lastLines keeps the end of what a program prints.
type lastLines struct {
	mu sync.Mutex
	b  []byte
}

const keptOutput = 8 << 10

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if n := len(l.b) - keptOutput; n > 0 {
		l.b = append(l.b[:0], l.b[n:]...)
	}
	return len(p), nil
}

func (l *lastLines) show(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimRight(string(l.b), "\n"), "\n")
	if len(l.b) == 0 {
		return
	}
	fmt.Fprintln(w, "the program's last output:")
	for _, line := range lines[max(0, len(lines)-20):] {
		fmt.Fprintln(w, "  "+line)
	}
}
