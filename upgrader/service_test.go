//go:build linux

package upgrader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"github.com/oklog/run"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/signals"
)

// envDir is the directory that a service and its test share.
const envDir = "UPGRADER_TEST_DIR"

// settings are what a service reads when it starts, so that a test can give its
// successor others.
type settings struct {
	Listen  []string
	Hold    []string // opened, and not served
	Files   []string // names; see files_test.go
	Mode    string   // how the process misbehaves; "" if it does not
	Title   string
	Path    string
	Timeout time.Duration
	// CommitTimeout, if set, replaces the package's.
	CommitTimeout time.Duration
	Yield         string // what happens at the commit, if anything: "give", "fail", "die", "wait"
	Speaks        [2]int // if set, the first and the last version of the succession that it speaks
}

// serviceMain is a program as in the package's documentation, with a control
// socket beside it that the upgrader does not know.
func serviceMain() {
	// It ends when its test does, however that happens.
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(77) }()
	dir := os.Getenv(envDir)
	var set settings
	b, err := os.ReadFile(filepath.Join(dir, "settings"))
	check(err)
	check(json.Unmarshal(b, &set))
	early(set.Mode)
	if set.CommitTimeout > 0 {
		commitTimeout = set.CommitTimeout
	}

	if set.Speaks != [2]int{} {
		successionMin, successionVersion = set.Speaks[0], set.Speaks[1]
	}

	s := &service{dir: dir, release: make(chan struct{})}
	cfg := Config{
		PIDFile: filepath.Join(dir, "pid"), Timeout: set.Timeout, Title: set.Title, Path: set.Path,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if set.Yield != "" {
		cfg.Yield, cfg.Resume = s.yield(set.Yield), func() { fmt.Println("resumed", os.Getpid()) }
	}
	s.up, err = New(cfg)
	check(err)
	var g run.Group
	s.hold(set)
	for _, l := range set.Listen {
		spec, err := listen.Parse(l)
		check(err)
		if spec.Packet() {
			g.Add(s.echo(spec))
			continue
		}
		ln, err := s.up.Listen(spec.Name, spec.Network, spec.Addr)
		check(err)
		if set.Mode == "no accept" {
			continue
		}
		if spec.Network == "unixpacket" {
			g.Add(drain.Actor(greeter{}, ln, drain.Config{Logger: slog.New(slog.DiscardHandler)}))
			continue
		}
		srv := &http.Server{Handler: http.HandlerFunc(s.serve)}
		g.Add(drain.Actor(srv, ln, drain.Config{LameDuck: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}))
	}
	late(set.Mode, s.up)
	control := s.control()
	if set.Mode == "neighbour" {
		g.Add(func() error { return errors.New("the cache is cold") }, func(error) {})
	}
	if set.Yield == "" || set.Yield == "wait" {
		g.Add(s.up.Actor())
	} else {
		g.Add(s.heir())
	}
	g.Add(signals.Actor(context.Background(), signals.Map{
		syscall.SIGHUP:  func(ctx context.Context) error { return report("HUP", s.up.Upgrade(ctx)) },
		syscall.SIGTERM: signals.Stop,
	}, signals.Late(func(sig os.Signal) {
		if sig == syscall.SIGHUP {
			fmt.Println("relayed", s.up.Relay(sig))
		}
	})))
	err = g.Run()
	_ = control.Shutdown(context.Background())
	if err != nil && !errors.Is(err, signals.ErrStop) {
		check(err)
	}
	fmt.Println("end", os.Getpid())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

func report(what string, err error) error {
	if err == nil {
		fmt.Println(what, "upgraded")
	} else {
		fmt.Println(what, "not upgraded:", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return err
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// killOld kills the process that started this one and waits for its end.
func killOld(up *Upgrader) {
	// It need not be the parent: it has made the connection (unix(7), SO_PEERCRED).
	rc, err := up.pred.conn.SyscallConn()
	check(err)
	var old *unix.Ucred
	check(errors.Join(rc.Control(func(fd uintptr) {
		old, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}), err))
	fd, err := unix.PidfdOpen(int(old.Pid), unix.PIDFD_NONBLOCK)
	check(err)
	check(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	for {
		pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(pfd, -1); n == 1 {
			return
		}
	}
}

// early misbehaves before the process has met its predecessor.
func early(mode string) {
	switch mode {
	case "panic":
		fmt.Println("about to")
		panic("no such luck")
	case "bare":
		tf, err := tableflip.New(tableflip.Options{})
		check(err)
		check(tf.Ready())
		select {}
	case "garbage", "future", "hang up":
		p, err := meetPredecessor()
		check(err)
		switch mode {
		case "garbage":
			check(p.conn.Send("nonsense"))
		case "future":
			check(p.conn.Send(message{Cmd: cmdHello, Version: 9, MinVersion: 8}))
		case "hang up":
			p.conn.Close()
		}
		fmt.Println("waiting for the end")
		select {}
	}
}

// late misbehaves when the process could serve.
func late(mode string, up *Upgrader) {
	switch mode {
	case "fail":
		fmt.Println("the last words")
		up.Fail(errors.New("the database has no tables"))
		os.Exit(4)
	case "fail in order":
		up.Fail(errors.New("not today"))
		up.Stop()
		os.Exit(4)
	case "fail and stay":
		up.Fail(errors.New("I am not leaving"))
		select {}
	case "ward":
		entrustWard(up)
		up.Fail(errors.New("the second worker does not come up"))
		os.Exit(4)
	case "hang":
		fmt.Println("hanging")
		select {}
	case "die after ack":
		_, err := up.pred.awaitCommit(context.Background())
		check(err)
		die()
	case "hang after commit":
		_, err := up.pred.awaitCommit(context.Background())
		check(err)
		fmt.Println("hanging")
		select {}
	case "die after ready":
		_, err := up.Ready(context.Background())
		check(err)
		die()
	case "old dies before commit":
		killOld(up)
		// More than the pipes hold, and nobody reads them but this process.
		fmt.Println(strings.Repeat(strings.Repeat("x", 99)+"\n", 2000))
		fmt.Fprintln(os.Stderr, "still here")
	case "old dies after commit":
		_, err := up.succeed(context.Background())
		check(err)
		killOld(up)
		up.decide(Legacy{}, false)
		select {}
	case "chatty":
		for i := range 3000 {
			fmt.Printf("line %d %s\n", i, strings.Repeat("x", 60))
		}
	}
}

type service struct {
	dir     string
	up      *Upgrader
	release chan struct{}
}

// serve is what clients see.
func (s *service) serve(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, os.Getpid())
	if r.URL.Path == "/hold" {
		w.(http.Flusher).Flush()
		select {
		case <-s.release:
			fmt.Fprintln(w, "released")
		case <-r.Context().Done():
		}
	}
}

// yield is a Config.Yield.
func (s *service) yield(how string) func(context.Context) (Legacy, error) {
	return func(context.Context) (Legacy, error) {
		switch how {
		case "fail":
			return Legacy{}, errors.New("this is mine")
		case "die":
			die()
		case "wait":
			fmt.Println("waits", os.Getpid())
			<-s.release
			return Legacy{}, nil
		}
		f, err := os.Open(filepath.Join(s.dir, "settings"))
		check(err)
		return Legacy{Files: []NamedFile{{"settings", f}}, State: json.RawMessage(strconv.Itoa(os.Getpid()))}, nil
	}
}

// heir is an actor that tells what it has inherited.
func (s *service) heir() (func() error, func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	return func() error {
		defer s.up.Stop()
		legacy, err := s.up.Ready(ctx)
		if err != nil {
			return err
		}
		defer legacy.Close()
		names := ""
		for _, f := range legacy.Files {
			st, err := f.File.Stat()
			check(err)
			names += fmt.Sprint(" ", f.Name, " ", st.Size() > 0)
		}
		fmt.Printf("inherited %s%s\n", legacy.State, names)
		select {
		case <-s.up.Replaced():
		case <-ctx.Done():
		}
		return nil
	}, func(error) { cancel() }
}
