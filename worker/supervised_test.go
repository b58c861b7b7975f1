//go:build linux

package worker_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/sdnotify"
)

// TestSupervised: without a parent, a worker says to whoever supervises it that it
// serves, that it lives, and that it stops and needs some time for it.
func TestSupervised(t *testing.T) {
	t.Parallel()
	inbox, err := sdnotify.NewInbox()
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Close()
	giveUp := time.AfterFunc(patience, inbox.Halt)
	defer giveUp.Stop()
	p, path := alone(t, "serve", sdnotify.Env+"="+inbox.Addr(), sdnotify.EnvWatchdog+"=40000")
	next := func() string {
		t.Helper()
		n, err := inbox.Read()
		if err != nil {
			t.Fatal(err)
		}
		n.Done()
		return n.Text
	}
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := next(); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	if err := unixGet(t, path, "/"); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGTERM)
	stops := ""
	for stops == "" {
		if got := next(); got != "WATCHDOG=1" {
			stops = got
		}
	}
	if stops != "STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000" {
		t.Errorf("it says %q", stops)
	}
	p.exits("exit status 0")
}

// TestSupervisedBad: what is wrong with the supervisor's wishes is said before anything
// is opened, and a supervisor that is not there does not matter.
func TestSupervisedBad(t *testing.T) {
	t.Parallel()
	p, _ := alone(t, "serve", sdnotify.Env+"=@nobody", sdnotify.EnvWatchdog+"=often")
	p.exits("exit status 2")
	if out := p.output(); !strings.Contains(out, sdnotify.EnvWatchdog) {
		t.Error(out)
	}
	p, path := alone(t, "serve", sdnotify.Env+"=@nobody")
	if err := unixGet(t, path, "/"); err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	p.writes("the supervisor could not be told")
	p.signal(syscall.SIGTERM)
	p.exits("exit status 0")
}
