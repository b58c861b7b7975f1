//go:build unix

package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/draintest"
	"github.com/handover-go/handover/draintest/load"
)

// draintestOptions are flags of "handover draintest".
type draintestOptions struct {
	url, socket, host, caFile      string
	insecure, http2, unasked       bool // unasked: there is no --url, and clients that ask for it
	signal, action                 string
	killWorker, ids, quiet, output bool
	kinds                          []string
	paths, addrs                   map[load.Kind]*string
	headers                        []string
	clients                        int
	slow, stream, upload           time.Duration
	jsonFile, junitFile, htmlFile  string
}

// ownAddr are the kinds whose servers can have an address of their own.
var ownAddr = []load.Kind{load.GRPC, load.TCP, load.UDP}

// hint says what a person may have forgotten when a test could not begin.
func (o *draintestOptions) hint(err error) error {
	if errors.Is(err, load.ErrNotReady) && o.unasked {
		return fmt.Errorf("%w\n(there was no --url, so that %s was asked)", err, o.url)
	}
	return err
}

// misplaced names an argument that is no program: dash is how many stand before "--", or -1.
func misplaced(args []string, dash int) error {
	switch {
	case len(args) == 0:
	case strings.Contains(args[0], "://"):
		return fmt.Errorf("%s is a URL and no program: write --url %s", args[0], args[0])
	case dash > 0:
		return fmt.Errorf("%s stands before --: the program and its arguments come after it, and all else is a flag", args[0])
	}
	return nil
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
	o.unasked = !changed("url") && !changed("socket")
	if len(cfg.Command) == 0 && o.unasked && !o.elsewhere() {
		return errors.New("nothing to test: give a program (handover draintest [flags] -- program args…), or the --url of one that runs")
	}
	if rest, ok := strings.CutPrefix(o.url, "unix://"); ok {
		if changed("socket") {
			return errors.New("--url unix://… and --socket: one socket")
		}
		path, uri, _ := strings.Cut(rest, ":")
		o.socket, o.url = path, "http://localhost"+cmp.Or(uri, "/")
		if path == "" || uri != "" && uri[0] != '/' {
			return fmt.Errorf("--url unix://%s: want unix:///path/of/socket:/path", rest)
		}
	}
	u, err := url.Parse(o.url)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("--url %q: want http://host:port/path, https://host:port/path or unix:///path/of/socket:/path", o.url)
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
		l.Addr = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	if err := o.applyTLS(l, u.Scheme == "https"); err != nil {
		return err
	}
	if o.socket != "" {
		l.Addr = "unix:" + o.socket
	}
	l.Plain = !o.ids
	l.Path = map[load.Kind]string{}
	for _, k := range []load.Kind{load.New, load.KeepAlive, load.HTTP2, load.Unix} {
		l.Path[k] = u.RequestURI()
	}
	if o.http2 {
		*o.paths[load.HTTP2] = cmp.Or(*o.paths[load.HTTP2], u.RequestURI())
	}
	if err := o.applyKinds(l); err != nil {
		return err
	}
	o.applyAddrs(l)
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
	all := load.Kinds()
	names := o.kinds
	if len(names) == 0 {
		if !o.unasked || !o.elsewhere() {
			names = []string{load.New.String(), load.KeepAlive.String()}
		}
		for _, kind := range all {
			if given(o.paths[kind]) || given(o.addrs[kind]) {
				names = append(names, kind.String())
			}
		}
		if l.Unix != "" {
			names = append(names, load.Unix.String())
		}
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(k load.Kind) bool { return k.String() == name })
		if i < 0 {
			return fmt.Errorf("--kinds %s: no such kind: want %v", name, all)
		}
		l.Clients[all[i]] = o.clients
	}
	if l.Unix == "" && l.Clients[load.Unix] > 0 {
		return errors.New("--kinds unix: of which socket? Give its path with --unix")
	}
	if l.Unix != "" && l.Clients[load.Unix] == 0 {
		return errors.New("--unix: there are no clients of that kind: see --kinds")
	}
	if l.Clients[load.WebSocket] > 0 && *o.paths[load.WebSocket] == "" {
		return errors.New("--kinds websocket: where? Give the path with --websocket-path")
	}
	for _, kind := range []load.Kind{load.TCP, load.UDP} {
		if l.Clients[kind] > 0 && !given(o.addrs[kind]) {
			return fmt.Errorf("--kinds %v: where? Give the address with --%v", kind, kind)
		}
	}
	for _, kind := range all {
		if given(o.paths[kind]) {
			l.Path[kind] = *o.paths[kind]
		}
		switch {
		case l.Clients[kind] > 0:
		case given(o.paths[kind]):
			return fmt.Errorf("--%v-path: there are no clients of that kind: see --kinds", kind)
		case given(o.addrs[kind]):
			return fmt.Errorf("--%v: there are no clients of that kind: see --kinds", kind)
		}
	}
	return nil
}

// applyAddrs says who has an address of its own. If all have, nobody asks for the URL.
func (o *draintestOptions) applyAddrs(l *load.Config) {
	l.Addrs = map[load.Kind]string{}
	for _, kind := range ownAddr {
		if given(o.addrs[kind]) {
			l.Addrs[kind] = *o.addrs[kind]
		}
	}
	for kind := range l.Clients {
		if l.Addrs[kind] == "" {
			return
		}
	}
	o.unasked = false
	for _, kind := range slices.Backward(ownAddr) {
		if l.Clients[kind] > 0 {
			l.Addr, l.Host = l.Addrs[kind], o.host
		}
	}
}

// elsewhere tells whether there are servers of other kinds than that of the URL.
func (o *draintestOptions) elsewhere() bool {
	return slices.ContainsFunc(ownAddr, func(k load.Kind) bool { return given(o.addrs[k]) })
}

// given tells whether there is a flag, and it has a value.
func given(flag *string) bool { return flag != nil && *flag != "" }

// applyTLS says whom to trust.
func (o *draintestOptions) applyTLS(l *load.Config, secure bool) error {
	if !secure {
		if o.caFile != "" || o.insecure {
			return errors.New("--ca-file, --insecure: they are for an --url of https")
		}
		return nil
	}
	l.TLS = &tls.Config{InsecureSkipVerify: o.insecure}
	if o.caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(o.caFile)
	if err != nil {
		return fmt.Errorf("--ca-file: %w", err)
	}
	l.TLS.RootCAs = x509.NewCertPool()
	if !l.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--ca-file %s: there is no certificate in it (PEM)", o.caFile)
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
