//go:build linux

package upgrader

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"github.com/handover-go/handover/internal/launch"
)

// envProgram makes the test binary one of the programs that the tests start.
const envProgram = "UPGRADER_TEST_PROGRAM"

var programs = map[string]func(){
	"service":  serviceMain,
	"inspect":  inspectMain,
	"bare":     bareMain,
	"hold":     holdMain,
	"ward":     wardMain,
	"with pid": withPidMain,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(envProgram); name != "" {
		programs[name]()
		os.Exit(0)
	}
	os.Exit(testMain(m))
}

// testMain lets this process be the reaper of everything that the tests leave
// behind, and takes it for a failure if there is something in the end.
func testMain(m *testing.M) int {
	if err := launch.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stop, reaped := make(chan struct{}), make(chan struct{})
	go func() { defer close(reaped); launch.ReapOrphans(stop) }()
	code := m.Run()
	for limit := deadline(); len(launch.Children()) > 0; runtime.Gosched() {
		if limit.passed() {
			fmt.Fprintln(os.Stderr, "processes are left:", launch.Children())
			code = 1
			break
		}
	}
	close(stop)
	<-reaped
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}
