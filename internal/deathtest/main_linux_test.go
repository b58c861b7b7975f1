package deathtest_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/worker"
)

// The test binary is the service, too, by this name.
const serviceName = "shop"

// What the service is told in its environment.
const (
	envStep    = "DEATH_STEP"    // at which its processes ask the test what to do
	envAsk     = "DEATH_ASK"     // the unix socket by which they do, while there is one
	envControl = "DEATH_CONTROL" // path of the control socket
	envMark    = "DEATH_MARK"    // names the test, in the environment of all its processes
	envDrain   = "DEATH_DRAIN"   // how long workers may drain
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == serviceName {
		serviceMain()
		return
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

func serviceMain() {
	fault.OnStep(func(step string) {
		if step == os.Getenv(envStep) {
			ask()
		}
	})
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	drain, err := time.ParseDuration(os.Getenv(envDrain))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	handover.Main(handover.Config{
		Name: serviceName, Listen: []string{"http=tcp://127.0.0.1:0"}, Control: os.Getenv(envControl), Logger: log,
		Groups: []handover.Group{
			{Name: "agent", Agent: true, App: agent},
			{Name: "web", Sockets: []string{"http"}, Workers: 2, App: demo.App},
		},
		Probation: 100 * time.Millisecond, UpgradeTimeout: 5 * time.Second, DrainTimeout: drain,
		Heartbeat: 200 * time.Millisecond, HungAfter: 4 * time.Second,
		Started: func(i handover.Info) { log.Info("started", "listen", i.Listen[0]) },
	}, nil)
}

func agent(ctx context.Context, w *worker.Worker) error {
	w.Ready()
	<-ctx.Done()
	return nil
}

// ask stops here until the test has done what it wants to do. Only the first process that
// takes the step does.
func ask() {
	c, err := net.Dial("unix", os.Getenv(envAsk))
	if err != nil {
		return // it was not the first, or the test does not want to know yet
	}
	defer c.Close()
	fmt.Fprintln(c, os.Getpid())
	_, _ = c.Read(make([]byte, 1))
}
