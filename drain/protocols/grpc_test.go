package protocols_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// maxAge is how old a connection becomes, more or less a tenth.
const maxAge = 500 * time.Millisecond

// calls is the service of gRPC's own interoperability tests.
type calls struct {
	testpb.UnimplementedTestServiceServer
	who      string
	draining context.Context
}

// UnaryCall answers with the payload, after 20 ms.
func (c *calls) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	select {
	case <-time.After(20 * time.Millisecond):
		return &testpb.SimpleResponse{Payload: r.Payload, ServerId: c.who}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// StreamingOutputCall sends as many messages as are asked for, 10 ms apart.
func (c *calls) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range r.ResponseParameters {
		<-time.After(10 * time.Millisecond)
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(c.who)}}); err != nil {
			return err
		}
	}
	return nil
}

// FullDuplexCall answers each message with the worker's name, and says "draining", once,
// when it is. It goes on as long as the client does.
func (c *calls) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	say := func(what string) error {
		return s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(what)}})
	}
	asked := make(chan error)
	go func() {
		for {
			_, err := s.Recv()
			select {
			case asked <- err:
			case <-s.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	draining := c.draining.Done()
	for {
		select {
		case err := <-asked:
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = say(c.who)
			}
			if err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		case <-draining:
			draining = nil
			if err := say("draining"); err != nil {
				return err
			}
		}
	}
}

// Clients may watch the server's health, and make no call where it is bad.
const (
	watches = `{"healthCheckConfig": {"serviceName": ""}, "loadBalancingConfig": [{"round_robin": {}}]}`
	ignores = `{}`
)

// connectCalls makes a client that asks once: what fails was not tried again.
func connectCalls(addr, config string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithDefaultServiceConfig(config))
}

func dial(t *testing.T, addr, config string) *grpc.ClientConn {
	t.Helper()
	c, err := connectCalls(addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// unary makes one call, and returns who has answered.
func unary(ctx context.Context, c *grpc.ClientConn, id string) (string, error) {
	r, err := testpb.NewTestServiceClient(c).UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte(id)}})
	if err != nil {
		return "", err
	}
	if got := string(r.Payload.Body); got != id {
		return "", fmt.Errorf("the answer to %q is that to %q", id, got)
	}
	return r.ServerId, nil
}

// listen has ten messages streamed by one worker.
func listen(ctx context.Context, c *grpc.ClientConn) (string, error) {
	const n = 10
	s, err := testpb.NewTestServiceClient(c).StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
		ResponseParameters: slices.Repeat([]*testpb.ResponseParameters{{}}, n)})
	who := ""
	for i := 0; err == nil; i++ {
		var r *testpb.StreamingOutputCallResponse
		if r, err = s.Recv(); err == nil {
			who = string(r.Payload.Body)
		} else if errors.Is(err, io.EOF) && i == n {
			return who, nil
		}
	}
	return "", fmt.Errorf("a stream that was not whole: %w", err)
}

// callers are clients that call all the time, each kind in its way. The last worker that
// has answered each is kept.
type callers struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	last   map[string]string
	good   map[string]int // by kind
	failed []error
	more   chan struct{}
}

func startCallers(t *testing.T, addr, config string) *callers {
	ctx, stop := context.WithCancel(t.Context())
	c := &callers{stop: stop, last: map[string]string{}, good: map[string]int{}, more: make(chan struct{})}
	kinds := map[string]func(ctx context.Context, cc *grpc.ClientConn, id string) (string, error){
		"unary":  unary,
		"stream": func(ctx context.Context, cc *grpc.ClientConn, _ string) (string, error) { return listen(ctx, cc) },
		"new": func(ctx context.Context, _ *grpc.ClientConn, id string) (string, error) {
			cc, err := connectCalls(addr, ignores) // and calls as soon as it is connected
			if err != nil {
				return "", err
			}
			defer cc.Close()
			return unary(ctx, cc, id)
		},
	}
	for kind, n := range map[string]int{"unary": 8, "stream": 8, "new": 4} {
		for i := range n {
			name, cc := fmt.Sprint(kind, i), dial(t, addr, config)
			c.wg.Go(func() {
				for nth := 0; ctx.Err() == nil; nth++ {
					// A call that has begun is finished, whatever ctx says.
					call, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
					who, err := kinds[kind](call, cc, fmt.Sprint(name, " ", nth))
					cancel()
					c.note(kind, name, who, err)
				}
			})
		}
	}
	t.Cleanup(func() { stop(); c.wg.Wait() })
	return c
}

func (c *callers) note(kind, name, who string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed = append(c.failed, fmt.Errorf("%s: %w", name, err))
	} else {
		c.last[name] = who
		c.good[kind]++
	}
	close(c.more)
	c.more = make(chan struct{})
}

// reach waits until all were answered by a generation, and those that keep a connection by
// each of its workers, and counts the clients of each.
func (c *callers) reach(t *testing.T, want int) map[string]int {
	t.Helper()
	for late := time.After(patience); ; {
		c.mu.Lock()
		workers, all := map[string]int{}, len(c.last) == 20
		for name, who := range c.last {
			all = all && generation(who) == want
			if name[:3] != "new" {
				workers[who]++
			}
		}
		more := c.more
		c.mu.Unlock()
		if all && len(workers) > 1 {
			return workers
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("not all were answered by generation %d, and by both of its workers: %v", want, workers)
		}
	}
}

func (c *callers) check(t *testing.T) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	for _, err := range c.failed {
		t.Errorf("a client noticed: %v", err)
	}
	for _, kind := range []string{"unary", "stream", "new"} {
		if c.good[kind] == 0 {
			t.Errorf("no good call of kind %s", kind)
		}
	}
	t.Logf("good calls: %v", c.good)
}

// TestGRPC: no call and no stream fails in upgrades, all of the next ones go to the new
// workers, and clients spread over both.
func TestGRPC(t *testing.T) {
	t.Parallel()
	s := start(t, "grpc", "grpc=tcp://127.0.0.1:0")
	c := startCallers(t, s.addr, watches)
	c.reach(t, 1)
	for i := range 4 {
		s.upgrade()
		t.Logf("generation %d: %v", i+2, c.reach(t, i+2))
	}
	c.check(t)
	s.stop()
	s.clean()
}

// TestGRPCLongStream: a stream that outlasts its worker's drain is told, by its handler,
// while calls of the same client go to a new worker, and is cut at the timeout.
func TestGRPCLongStream(t *testing.T) {
	t.Parallel()
	s := start(t, "grpc", "grpc=tcp://127.0.0.1:0", envTimeout+"=1500ms")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cc := dial(t, s.addr, ignores)
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	says := func() (string, error) {
		r, err := stream.Recv()
		return string(r.GetPayload().GetBody()), err
	}
	ask := func() string {
		t.Helper()
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		what, err := says()
		if err != nil {
			t.Fatal(err)
		}
		return what
	}
	if got := ask(); generation(got) != 1 {
		t.Fatalf("%q has answered", got)
	}
	from := s.mark()
	s.signal(syscall.SIGHUP)
	if what, err := says(); what != "draining" {
		t.Fatalf("it was not told: %q, %v", what, err)
	}
	for who := ""; generation(who) != 2; { // another old worker may serve for a moment
		if who, err = unary(ctx, cc, "elsewhere"); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(); generation(got) != 1 { // and works until then
		t.Errorf("%q has answered", got)
	}
	if what, err := says(); status.Code(err) != codes.Unavailable {
		t.Errorf("not cut: %q, %v", what, err)
	}
	s.await(from, "msg=drained", " cut=1 ")
	s.await(from, `msg="generation serves"`)
	s.stop()
}

// TestGRPCStop: when the service is to stop, its health says so while it still serves, and
// what has begun is finished.
func TestGRPCStop(t *testing.T) {
	t.Parallel()
	s := start(t, "grpc", "grpc=tcp://127.0.0.1:0", envDelay+"=3s")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	w, err := healthpb.NewHealthClient(dial(t, s.addr, ignores)).Watch(watching, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if r, err := w.Recv(); err != nil || r.Status != want {
			t.Fatalf("its health is %v, %v, not %v", r.GetStatus(), err, want)
		}
	}
	expect(healthpb.HealthCheckResponse_SERVING)
	c := startCallers(t, s.addr, ignores)
	c.reach(t, 1)
	s.signal(syscall.SIGTERM)
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	unwatch() // as a load balancer does; a drain waits for it
	for range 2 {
		if _, err := unary(ctx, dial(t, s.addr, ignores), "late"); err != nil {
			t.Errorf("a new client, before the drain: %v", err)
		}
	}
	c.check(t)
	s.ends()
	s.clean()
}
