package deathtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/shop"
)

// What the service is told in its environment.
const (
	envStep    = "DEATH_STEP"    // at which its processes ask the test what to do
	envDrain   = "DEATH_DRAIN"   // how long workers may drain
	envUpgrade = "DEATH_UPGRADE" // how long an upgrade may take
)

func TestMain(m *testing.M) { shop.Main(m, service) }

func service() {
	fault.OnStep(func(step string) {
		if step == os.Getenv(envStep) {
			ask()
		}
	})
	cfg := shop.Config()
	var derr, uerr error
	cfg.DrainTimeout, derr = time.ParseDuration(os.Getenv(envDrain))
	cfg.UpgradeTimeout, uerr = time.ParseDuration(os.Getenv(envUpgrade))
	if err := errors.Join(derr, uerr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	handover.Main(cfg, nil)
}

// askPath is that of the unix socket by which they do, while there is one.
func askPath(dir string) string { return filepath.Join(dir, "ask") }

// ask stops here until the test has done what it wants to do. Only the first process that
// takes the step does.
func ask() {
	c, err := net.Dial("unix", askPath(shop.Dir()))
	if err != nil {
		return // it was not the first, or the test does not want to know yet
	}
	defer c.Close()
	fmt.Fprintln(c, os.Getpid())
	_, _ = c.Read(make([]byte, 1))
}

// asked is where the first process that takes the step asks what to do, from now on.
func (tr trial) asked() net.Listener {
	tr.t.Helper()
	ln, err := net.Listen("unix", askPath(tr.Dir))
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { ln.Close() })
	return ln
}

// longHold is far less than the time in which a worker that drains hopes to hear who takes its idle
// connections.
const longHold = time.Second

// taker waits for the process that takes the step, which waits until the function is called. That
// reports whether it had to wait for so long that it was missed, as it may be on a busy machine.
func (tr trial) taker(ln net.Listener) (pid int, goOn func() (long bool)) {
	tr.t.Helper()
	_ = ln.(*net.UnixListener).SetDeadline(time.Now().Add(shop.Patience))
	c, err := ln.Accept()
	if err != nil {
		tr.t.Fatalf("the step is not taken: %v", err)
	}
	since := time.Now()
	ln.Close() // others pass
	line, err := bufio.NewReader(c).ReadString('\n')
	if pid, _ = strconv.Atoi(strings.TrimSpace(line)); err != nil || pid == 0 {
		tr.t.Fatalf("%q: %v", line, err)
	}
	return pid, func() bool {
		c.Close()
		return time.Since(since) > longHold
	}
}
