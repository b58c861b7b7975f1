package draintest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// An Action is what is done to a server in each round.
type Action struct {
	name     string
	needsPID bool
	kill     bool // see KillWorker
	do       func(ctx context.Context, pid int) error
}

// String returns what is done, in words.
func (a Action) String() string { return a.name }

// Signal sends a signal to the server's main process.
func Signal(sig syscall.Signal) Action {
	return Action{name: "signal " + signalName(sig), needsPID: true, do: func(_ context.Context, pid int) error {
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("draintest: signal to process %d: %w", pid, err)
		}
		return nil
	}}
}

// Shell has sh(1) run a command, such as "nginx -s reload". It has to end by itself,
// within Config.Settle, and with 0. DRAINTEST_PID in its environment is the server's main
// process, if that is known.
func Shell(command string) Action {
	return Action{name: command, do: func(ctx context.Context, pid int) error {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		if pid > 0 {
			cmd.Env = append(os.Environ(), fmt.Sprint("DRAINTEST_PID=", pid))
		}
		// All that it has started ends with it, when its time is over.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		// A file, since what it leaves running, such as a server, may print on.
		out, err := os.CreateTemp("", "draintest")
		if err != nil {
			return err
		}
		defer out.Close()
		defer os.Remove(out.Name())
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			b, _ := os.ReadFile(out.Name())
			return fmt.Errorf("draintest: %s: %w%s", command, err, lastLines(b))
		}
		return nil
	}}
}

// Call is an action in Go. The pid is that of the server's main process, or 0.
func Call(name string, do func(ctx context.Context, pid int) error) Action {
	return Action{name: name, do: do}
}

// lastLines is the end of an output, for an error.
func lastLines(out []byte) string {
	const most = 5
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.Join(lines[max(0, len(lines)-most):], "; ")
}

// signals that people name.
var signalNames = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "TERM": syscall.SIGTERM,
	"INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "WINCH": syscall.SIGWINCH, "TTIN": syscall.SIGTTIN,
	"TTOU": syscall.SIGTTOU, "CONT": syscall.SIGCONT, "KILL": syscall.SIGKILL,
}

func signalName(sig syscall.Signal) string {
	for name, s := range signalNames {
		if s == sig {
			return name
		}
	}
	return fmt.Sprint(int(sig))
}

// ParseSignal reads a signal's name, with or without SIG.
func ParseSignal(name string) (syscall.Signal, error) {
	sig, ok := signalNames[strings.TrimPrefix(strings.ToUpper(name), "SIG")]
	if !ok {
		return 0, fmt.Errorf("%w: signal %q: want a name such as HUP, USR2, TERM", ErrConfig, name)
	}
	return sig, nil
}
