package load

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// plainServer is one that does not know of this package.
func plainServer(t *testing.T, h http.HandlerFunc) Config {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	cfg := quick(srv.Listener.Addr().String())
	cfg.Clients = map[Kind]int{New: 1, Slow: 1, Upload: 1, Stream: 1, KeepAlive: 1}
	cfg.Path = map[Kind]string{New: "/items?all=1", Slow: "/report", Upload: "/in", Stream: "/out", KeepAlive: "/items/%C3%A4"}
	return cfg
}

func TestPlain(t *testing.T) {
	t.Parallel()
	var wrong atomic.Pointer[http.Request]
	paths := map[string]string{"/items?all=1": "GET", "/report": "GET", "/in": "POST", "/out": "GET", "/items/%C3%A4": "GET"}
	cfg := plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		if paths[r.RequestURI] != r.Method || r.Host != "shop.example:8080" {
			wrong.Store(r)
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintln(w, "hello")
	})
	cfg.Host, cfg.Status, cfg.Plain = "shop.example:8080", http.StatusAccepted, true
	r := runEach(t, cfg)
	if err := r.Check(); err != nil || wrong.Load() != nil {
		t.Errorf("%v; request: %+v", err, wrong.Load())
	}
	if r.Unmatched != r.OK || !strings.Contains(r.String(), fmt.Sprintf("(no X-Request-Id): %d", r.OK)) {
		t.Errorf("%d of %d are unmatched:\n%v", r.Unmatched, r.OK, r)
	}
}

// What does not show that a server is plain is a failure as ever.
func TestPlainAndWrong(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	for name, tc := range map[string]struct {
		change func(*Config)
		h      http.HandlerFunc
		class  Class
		says   string
	}{
		"not said to be plain": {func(c *Config) { c.Plain = false }, func(http.ResponseWriter, *http.Request) {}, Body, "without X-Request-Id"},
		"another's id": {nil, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Request-Id", "other") },
			CrossTalk, "answer to request other"},
		"another status": {nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
			Status, "204 No Content"},
		"early": {func(c *Config) {
			c.Clients, c.Path, c.SlowMS = map[Kind]int{Slow: 1}, map[Kind]string{Slow: "/sleep/{ms}"}, 20_000
		}, func(http.ResponseWriter, *http.Request) {}, Body, "cut short"},
		"an id now and then": {nil, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1)%2 == 0 {
				w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
			}
		}, 0, "answers of kind new carry no X-Request-Id, unlike the others"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := plainServer(t, tc.h)
			cfg.Clients, cfg.Plain, cfg.MaxRequests = map[Kind]int{New: 1}, true, 4
			if tc.change != nil {
				tc.change(&cfg)
			}
			r := run(t, cfg)
			if err := r.Check(); err == nil || !strings.Contains(err.Error(), tc.says) || tc.class != 0 && r.Failures[tc.class] != 4 {
				t.Errorf("want %q: %v", tc.says, err)
			}
		})
	}
}
