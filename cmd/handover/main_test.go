//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"handover": main})
}

// TestScripts runs the command as its user does: every script of testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await": await,
			"send":  send,
		},
	})
}

// await waits until a file contains a text: await FILE TEXT.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	b, _ := os.ReadFile(ts.MkAbs(args[0]))
	ts.Fatalf("%s does not come to contain %q:\n%s", args[0], args[1], b)
}

// send sends a signal to the process that a file names: send SIGNAL FILE.
func send(ts *testscript.TestScript, neg bool, args []string) {
	sigs := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "USR2": syscall.SIGUSR2}
	if neg || len(args) != 2 || sigs[args[0]] == 0 {
		ts.Fatalf("usage: send SIGNAL FILE")
	}
	pid := 0
	for _, c := range strings.TrimSpace(ts.ReadFile(args[1])) {
		if c < '0' || c > '9' {
			ts.Fatalf("%s does not hold a pid", args[1])
		}
		pid = pid*10 + int(c-'0')
	}
	ts.Check(syscall.Kill(pid, sigs[args[0]]))
}
