package load

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// right is a server that does what the package's documentation asks for.
type right struct{ worker func() string }

func (s right) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
	if s.worker != nil {
		w.Header().Set("X-Worker", s.worker())
	}
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	wait := time.Duration(ms) * time.Millisecond
	switch r.URL.Path {
	case "/slow":
		<-time.After(wait)
		fmt.Fprintln(w, "slow")
	case "/upload":
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, `{"bytes": %d, "sha256": "%x"}`, n, sum.Sum(nil))
	case "/stream":
		for range 5 {
			io.WriteString(w, strings.Repeat("stream", 1000))
			w.(http.Flusher).Flush()
			<-time.After(wait / 5)
		}
	case "/grpc.health.v1.Health/Check":
		io.Copy(io.Discard, r.Body)
		call(w, "0", serving)
	default:
		io.WriteString(w, "here I am")
	}
}

// serving is what gRPC's health service answers.
const serving = "\x00\x00\x00\x00\x02\x08\x01"

// call is a gRPC answer.
func call(w http.ResponseWriter, status, body string) {
	w.Header().Set("Content-Type", "application/grpc+proto")
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
	io.WriteString(w, body)
}

func rightServer(t testing.TB, worker func() string) (addr string) {
	srv := httptest.NewServer(right{worker})
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// quick makes requests of all kinds short.
func quick(addr string) Config {
	return Config{Addr: addr, SlowMS: 20, StreamMS: 20, UploadMS: 20}
}

func mustStart(t testing.TB, cfg Config) *Load {
	t.Helper()
	l, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

// runEach makes the load go on until each kind has had two good answers.
func runEach(t testing.TB, cfg Config) Result {
	t.Helper()
	l := mustStart(t, cfg)
	if err := l.WaitEach(within(t), 2); err != nil {
		t.Fatal(err)
	}
	return l.Stop()
}

// run makes the load do all of cfg.MaxRequests.
func run(t testing.TB, cfg Config) Result {
	t.Helper()
	l := mustStart(t, cfg)
	<-l.Done()
	return l.Stop()
}

// within bounds a wait, generously: reaching it is a failure of the test.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t testing.TB, l *Load, what string, cond func(Result) bool) {
	t.Helper()
	if err := l.await(within(t), what, func() bool { return cond(l.Snapshot()) }); err != nil {
		t.Fatal(err)
	}
}
