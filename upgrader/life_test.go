//go:build linux

package upgrader

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// envLife makes TestLife do it rather than start itself in another process.
const envLife = "UPGRADER_TEST_LIFE"

// A whole life of a first generation, inside the test, which has a process of its
// own: there can be one in a process.
func TestLife(t *testing.T) {
	if os.Getenv(envLife) == "" {
		t.Parallel()
		p, err := launch.Start(launch.Spec{
			Path: launch.Self, Args: []string{os.Args[0], "-test.run=^TestLife$", "-test.timeout=1m"}, Fds: []int{0, 1, 2},
			Env: append(os.Environ(), envLife+"=1", "GORACE=atexit_sleep_ms=0"),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if st := p.Wait(); !st.Success() {
			t.Error(st)
		}
		return
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	pidFile := filepath.Join(dir, "pid")
	up, err := New(Config{Path: program, PIDFile: pidFile})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Stop()
	if _, err := New(Config{}); err == nil {
		t.Error("a second Upgrader")
	}
	if err := up.Upgrade(t.Context()); err != ErrNotReady {
		t.Errorf("before Ready: %v", err)
	}
	ln, err := up.Listen("a", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	path := filepath.Join(dir, "s")
	if _, err := up.Open("b", "unix", path); err != nil {
		t.Fatal(err)
	}
	_, err = up.Open("a", "tcp", ":1")
	if want := "open socket a=tcp://:1: the name is taken already by a=tcp://127.0.0.1:0"; err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
	if _, err = up.Open("c", "ip", ":1"); err == nil || !strings.Contains(err.Error(), `unknown network "ip"`) {
		t.Errorf("%v", err)
	}
	openPacketsAndFiles(t, up, dir)
	if up.HasPredecessor() || up.Generation() != 1 || up.Relay(syscall.SIGHUP) || len(up.Dropped()) != 0 {
		t.Error("not a first generation")
	}
	up.Fail(errors.New("does nothing"))

	if _, err := up.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Ready(t.Context()); err == nil {
		t.Error("a second Ready")
	}
	// tableflip may not have noticed Ready yet.
	var failed *FailedError
	if err := up.Upgrade(t.Context()); !errors.As(err, &failed) || !errors.Is(err, os.ErrNotExist) || failed.Started {
		t.Errorf("missing program: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := up.Upgrade(ended); !errors.Is(err, context.Canceled) || errors.Is(err, ErrPredecessorAlive) || errors.As(err, &failed) {
		t.Errorf("context that has ended: %v", err)
	}

	// One at a time.
	write(t, program, "#!/bin/sh\nexec sleep 1000\n")
	ctx, giveUp := context.WithCancelCause(t.Context())
	first := make(chan error, 1)
	// Whoever asks whether one is in progress is in its way for a moment.
	begin := func(ctx context.Context) {
		err := up.Upgrade(ctx)
		for err == ErrInProgress {
			err = up.Upgrade(ctx)
		}
		first <- err
	}
	go begin(ctx)
	until(t, "an upgrade is in progress", func() bool { return up.Upgrade(ended) == ErrInProgress })
	enough := errors.New("enough")
	giveUp(enough)
	if err := <-first; !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
	for range 2 {
		if err := up.Upgrade(ended); errors.Is(err, ErrInProgress) {
			t.Error(err)
		}
	}

	// Stop ends what is under way, and everything else.
	go begin(t.Context())
	until(t, "an upgrade is in progress", func() bool { return up.Upgrade(ended) == ErrInProgress })
	stopped := make(chan struct{})
	go func() { defer close(stopped); up.Stop() }()
	up.Stop()
	<-stopped
	if err := <-first; !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	if err := up.Upgrade(t.Context()); err != ErrStopped {
		t.Errorf("after Stop: %v", err)
	}
	if _, err := up.Open("d", "tcp", "127.0.0.1:0"); !errors.Is(err, ErrStopped) {
		t.Errorf("after Stop: %v", err)
	}
	if _, err := up.Ready(t.Context()); err != ErrStopped {
		t.Errorf("after Stop: %v", err)
	}
	for _, f := range []string{path, pidFile} {
		if _, err := os.Lstat(f); err == nil {
			t.Errorf("%s is left", f)
		}
	}
}

// write makes an executable file. See site.put.
func write(t *testing.T, path, content string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	give := func(context.Context) (Legacy, error) { return Legacy{}, nil }
	for want, c := range map[string]Config{
		"":                     {PIDFile: filepath.Join(dir, "pid"), Yield: give, Resume: func() {}},
		"timeout -1s: must be": {Timeout: -time.Second},
		`title "a\x00b"`:       {Title: "a\x00b"},
		`path "\x00"`:          {Path: "\x00"},
		"Yield and Resume":     {Yield: give},
		"no such file":         {PIDFile: filepath.Join(dir, "no", "pid")},
		"is no regular file":   {PIDFile: dir},
		"not a directory":      {PIDFile: "/dev/null/pid"},
	} {
		switch err := c.Validate(); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %q", err, want)
		}
	}
}
