package state

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/handover-go/handover/worker"
)

// The test binary is the workers, too: a set executes its own image.
func TestMain(m *testing.M) {
	if worker.Inherited() {
		workerMain()
	}
	if r, w, err := os.Pipe(); err == nil { // the runtime's poller opens its own descriptors
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	bad := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		code = max(code, 1)
	}
	if left := childrenLeft(); left != "" {
		bad("processes are left: %s", left)
	}
	if err := goleak.Find(); err != nil {
		bad("%v", err)
	}
	if after := descriptors(); len(after) > len(before) {
		bad("descriptors leaked:\nbefore %v\nafter %v", before, after)
	}
	os.Exit(code)
}

// descriptors are what this process has open, without the directory that is read to find
// out.
func descriptors() []string {
	entries, _ := os.ReadDir("/proc/self/fd")
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+"="+to)
		}
	}
	return open
}
