package state

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/workerset"
)

func init() {
	if err := launch.BecomeSubreaper(); err != nil {
		panic(err)
	}
}

func childrenLeft() string {
	pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
	if err == unix.ECHILD {
		return ""
	}
	return fmt.Sprintf("wait4 says %d, %v; children: %v", pid, err, launch.Children())
}

// host is a service: an agent and some workers below this process.
type host struct {
	t     *testing.T
	cfg   workerset.Config
	set   *workerset.Set
	addr  string
	ended chan struct{}
	stop  func()
}

// hostConfig is a service with an agent and some workers.
func hostConfig(t *testing.T, app, source string, workers int) workerset.Config {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	must(t, err)
	sock, err := launch.Fd(f)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	must(t, err)
	fd, err := launch.Fd(out)
	must(t, err)
	t.Cleanup(func() {
		if b, _ := os.ReadFile(out.Name()); t.Failed() {
			t.Logf("what the workers wrote:\n%s", b)
		}
		out.Close()
	})
	return workerset.Config{
		Name: ln.Addr().String(), Stdout: fd, Stderr: fd, Generation: 1,
		Program: workerset.Program{Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0", "TEST_APP="+app, "TEST_SOURCE="+source)},
		Groups: []workerset.Group{
			{Name: "agent", Count: 1, Sockets: []string{}, DrainTimeout: 5 * time.Second},
			{Name: "web", Count: workers, DrainTimeout: 20 * time.Second},
		},
		Sockets: map[string]int{"http": sock},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// newHost runs a service until the test's end.
func newHost(t *testing.T, app, source string, workers int) *host {
	t.Helper()
	h := &host{t: t, cfg: hostConfig(t, app, source, workers)}
	h.addr = h.cfg.Name
	return h.run()
}

func (h *host) run() *host {
	h.t.Helper()
	set, err := workerset.New(h.cfg)
	must(h.t, err)
	h.set, h.ended = set, make(chan struct{})
	ended := h.ended
	go func() {
		defer close(ended)
		if err := set.Run(); err != nil {
			h.t.Error(err)
		}
	}()
	h.stop = func() {
		h.t.Helper()
		set.Stop()
		select {
		case <-ended:
		case <-time.After(patience):
			set.Kill()
			<-ended
			h.t.Error("the set does not stop")
		}
	}
	h.t.Cleanup(h.stop)
	must(h.t, set.Ready(h.ctx()))
	return h
}

func (h *host) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

// workers are those of a group that serve.
func (h *host) workers(group string) (list []workerset.Worker) {
	h.t.Helper()
	st, err := h.set.Status(h.ctx())
	must(h.t, err)
	for _, g := range st.Groups {
		for _, w := range g.Workers {
			if g.Name == group && w.State == "serving" && !w.Stale {
				list = append(list, w)
			}
		}
	}
	return list
}

// kill ends a group's workers by a signal, and waits until others serve and they are gone.
func (h *host) kill(group string, sig syscall.Signal) {
	h.t.Helper()
	old := h.workers(group)
	for _, w := range old {
		must(h.t, syscall.Kill(w.Pid, sig))
	}
	until(h.t, "replacements of "+group, func() bool {
		return len(h.workers(group)) == len(old) && !slices.ContainsFunc(h.all(group), func(w workerset.Worker) bool {
			return slices.ContainsFunc(old, func(o workerset.Worker) bool { return o.Pid == w.Pid })
		})
	})
}

// upgrade has another parent take over, with agent and workers of its own.
func (h *host) upgrade() {
	h.t.Helper()
	old := *h
	h.cfg.Generation++
	h.cfg.Trial = true
	h.run()
	e, err := old.set.Yield(h.ctx())
	must(h.t, err)
	must(h.t, h.set.Commit(h.ctx(), e))
	var pids []int
	for _, group := range []string{"agent", "web"} {
		for _, w := range h.all(group) {
			if w.Generation < h.cfg.Generation {
				pids = append(pids, w.Pid)
			}
		}
	}
	old.set.Abandon()
	<-old.ended
	reaped := make(chan struct{})
	go func() { // in the place of the parent that they were children of
		defer close(reaped)
		for _, pid := range pids {
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}()
	h.t.Cleanup(func() { <-reaped })
	must(h.t, h.set.Ready(h.ctx()))
}

func (h *host) all(group string) (list []workerset.Worker) {
	h.t.Helper()
	st, err := h.set.Status(h.ctx())
	must(h.t, err)
	for _, g := range st.Groups {
		if g.Name == group {
			list = append(list, g.Workers...)
		}
	}
	return list
}

var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// see asks any worker.
func (h *host) see() view {
	h.t.Helper()
	v, err := seeAt(h.addr)
	must(h.t, err)
	return v
}

func seeAt(addr string) (v view, err error) {
	resp, err := plain.Get("http://" + addr + "/")
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&v)
	return v, err
}

// everywhere waits until every worker that serves says that.
func (h *host) everywhere(what string, ok func(view) bool) {
	h.t.Helper()
	var good map[int]bool
	defer func() {
		if h.t.Failed() {
			h.t.Logf("%v of %v", good, h.workers("web"))
		}
	}()
	good = map[int]bool{}
	until(h.t, what, func() bool {
		v := h.see()
		good[v.Pid] = ok(v)
		return !slices.ContainsFunc(h.workers("web"), func(w workerset.Worker) bool { return !good[w.Pid] })
	})
}

func (h *host) text(want string) {
	h.t.Helper()
	h.everywhere(want, func(v view) bool { return v.Text == want && v.Err == "" })
}

// follow is a request that stays, and gets a line for every change of one worker's.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	dec  *json.Decoder
	last view
}

func (h *host) follow() *stream {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	h.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.addr+"/follow", nil)
	must(h.t, err)
	resp, err := plain.Do(req)
	must(h.t, err)
	s := &stream{t: h.t, body: resp.Body, dec: json.NewDecoder(resp.Body)}
	h.t.Cleanup(func() { s.body.Close() })
	return s
}

// until reads until the worker has a value.
func (s *stream) until(want string) {
	s.t.Helper()
	for s.last.Text != want {
		if err := s.dec.Decode(&s.last); err != nil {
			s.t.Fatalf("%q does not come: %v; last %+v", want, err, s.last)
		}
	}
}
