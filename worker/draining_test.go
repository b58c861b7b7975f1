package worker

import (
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
)

// TestDrainingIsTrue: a worker says that it drains when it accepts no more.
func TestDrainingIsTrue(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d, err := drain.New(&http.Server{}, ln, drain.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{before: wire.PhaseServing, drainers: []*drain.Drainer{d}}
	w.state.Phase = wire.PhaseDraining
	if got := w.stateLocked().Phase; got != wire.PhaseServing {
		t.Errorf("before: %s", got)
	}
	d.Drain(0)
	<-d.Quiet()
	if got := w.stateLocked().Phase; got != wire.PhaseDraining {
		t.Errorf("after: %s", got)
	}
	<-d.Done()
}
