package protocols_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/worker"
)

// unaryCall is a call that takes 20 ms.
const unaryCall = "/grpc.testing.TestService/UnaryCall"

// stopped is a *grpc.Server of which a drain cuts what it has, as its Stop does.
type stopped struct{ *grpc.Server }

func (s stopped) Shutdown(context.Context) error {
	s.Stop()
	return nil
}

func serveStopped(ctx context.Context, w *worker.Worker) error {
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, &calls{who: who(w), draining: ctx})
	healthpb.RegisterHealthServer(s, health.NewServer())
	return w.Serve(ctx, "grpc", stopped{s})
}

// startCalls starts strict clients of gRPC, which has them send without a library of gRPC's.
func startCalls(t *testing.T, s *service, path string) *load.Load {
	return startStrict(t, load.Config{
		Addr: s.addr, Clients: map[load.Kind]int{load.GRPC: 4}, Rate: 50, Path: map[load.Kind]string{load.GRPC: path},
	})
}

// startStrict starts a load, when the service has answered it.
func startStrict(t *testing.T, cfg load.Config) *load.Load {
	t.Helper()
	cfg.WaitReady = patience
	l, err := load.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

// goesOn waits for so many answers more.
func goesOn(t *testing.T, l *load.Load, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.WaitRequests(ctx, n); err != nil {
		t.Fatal(err)
	}
}

// TestGRPCLoad: strict clients of gRPC lose no call in upgrades. They are told to go to
// another connection, then and when one is old.
func TestGRPCLoad(t *testing.T) {
	t.Parallel()
	s := start(t, "grpc", "grpc=tcp://127.0.0.1:0")
	for name, path := range map[string]string{"health": "", "calls": unaryCall} {
		l := startCalls(t, s, path)
		for range 3 {
			goesOn(t, l, 20)
			s.upgrade()
		}
		goesOn(t, l, 20)
		r := l.Stop()
		if err := r.ExceptIdle().Check(); err != nil {
			t.Errorf("%s: clients noticed: %v", name, err)
		}
		if r.ClosedIdle < 4 {
			t.Errorf("%s: %d connections were left, not each of 4", name, r.ClosedIdle)
		}
		t.Logf("%s: %d calls, %d connections left", name, r.Started, r.ClosedIdle)
	}
	s.stop()
	s.clean()
}

// TestGRPCStopped: a server that stops instead of draining is found out.
func TestGRPCStopped(t *testing.T) {
	t.Parallel()
	s := start(t, "grpc stopped", "grpc=tcp://127.0.0.1:0")
	l := startCalls(t, s, unaryCall)
	for late := time.Now().Add(patience); l.Snapshot().Failures.Total() == 0 && time.Now().Before(late); {
		goesOn(t, l, 20)
		s.upgrade()
	}
	r := l.Stop()
	if n := r.Failures.Total(); n == 0 || n != r.Failures[load.EOF]+r.Failures[load.Reset]+r.Failures[load.Cut] || r.Accounted() != nil {
		t.Errorf("want calls that were cut:\n%v", r)
	}
	t.Log(r)
	s.stop()
}
