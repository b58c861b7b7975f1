package shop

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/worker"
)

// name is the service's, and that of the binary when it is one of its processes.
const name = "shop"

// envDir names the service's directory to all its processes, which are known by it.
const envDir = "SHOP_DIR"

// started is what the service says when it serves, before its address.
const started = "started:"

// EnvHung is the variable for how long a process may be silent: Patience, if it is not set.
const EnvHung = "SHOP_HUNG"

// Dir is that directory, in one of them.
func Dir() string { return os.Getenv(envDir) }

// Main runs the tests, after which no process may be left, or the service, if this is one of its
// processes. It does not return.
func Main(m *testing.M, service func()) {
	if filepath.Base(os.Args[0]) == name {
		service()
		os.Exit(1)
	}
	if err := procs.Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := procs.ReapAll(ctx); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "processes left behind:", err)
		code = 1
	}
	os.Exit(code)
}

// Config is that of the service, to be changed before handover.Main gets it.
func Config() handover.Config {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	return handover.Config{
		Name: name, Listen: []string{"http=tcp://127.0.0.1:0"}, Logger: log,
		Control: controlPath(Dir()), PIDFile: pidPath(Dir()),
		Groups: []handover.Group{
			{Name: "agent", Agent: true, App: agent},
			{Name: "web", Sockets: []string{"http"}, Workers: 2, App: demo.App},
		},
		Probation: 100 * time.Millisecond, UpgradeTimeout: 5 * time.Second, DrainTimeout: 5 * time.Second,
		Heartbeat: 200 * time.Millisecond, HungAfter: hungAfter(),
		Started: func(i handover.Info) { fmt.Fprintln(os.Stderr, started, i.Listen[0]) },
	}
}

func hungAfter() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(EnvHung)); err == nil {
		return d
	}
	return Patience
}

func controlPath(dir string) string { return filepath.Join(dir, "control") }

func pidPath(dir string) string { return filepath.Join(dir, "pid") }

func agent(ctx context.Context, w *worker.Worker) error {
	w.Ready()
	<-ctx.Done()
	return nil
}
