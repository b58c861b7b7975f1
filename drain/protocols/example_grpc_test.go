package protocols_test

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/worker"
)

// A gRPC server whose calls and streams are finished by the worker that has begun them.
func Example_grpc() {
	handover.Main(handover.Config{Name: "calls", Listen: []string{"grpc=tcp://:50051"}}, serveGRPC)
}

// grpcServer is a *grpc.Server as a drain serves it.
type grpcServer struct{ *grpc.Server }

// Shutdown tells clients to make new calls elsewhere (GOAWAY), and waits for those that
// have begun. What is left when ctx ends is cut.
func (s grpcServer) Shutdown(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	s.GracefulStop()
	return ctx.Err()
}

func serveGRPC(ctx context.Context, w *worker.Worker) error {
	// Whoever accepts soonest gets most clients: they are sent off now and then, to spread.
	s := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxAge}))
	// Yours. Handlers of long streams are told by ctx that the drain has begun.
	testpb.RegisterTestServiceServer(s, &calls{who: who(w), draining: ctx})
	h := health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	w.Go(func(context.Context) error { // load balancers are told as soon as a stop is near
		<-w.Stopping()
		if ctx.Err() == nil { // not in an upgrade: its clients would fail, and not come again
			h.Shutdown()
		}
		return nil
	})
	return w.Serve(ctx, "grpc", grpcServer{s})
}
