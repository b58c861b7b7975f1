//go:build linux

package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestRetry: a process that is just being replaced is asked again.
func TestRetry(t *testing.T) {
	t.Parallel()
	path := socket(t)
	var asked atomic.Int32
	serve(t, path, &fake{status: func() (Status, error) {
		if asked.Add(1) < 4 {
			return Status{}, errors.New("just replaced")
		}
		return status, nil
	}})
	st, raw, err := NewClient(path).Status(within(t))
	if err != nil || asked.Load() != 4 || !reflect.DeepEqual(st, status) || !strings.Contains(string(raw), `"service": "shop"`) {
		t.Errorf("asked %d times: %+v, %v, %s", asked.Load(), st, err, raw)
	}
}

// TestRetryEnds with its context, and says what it has heard.
func TestRetryEnds(t *testing.T) {
	t.Parallel()
	path := socket(t)
	ctx, cancel := context.WithCancel(within(t))
	var asked atomic.Int32
	serve(t, path, &fake{status: func() (Status, error) {
		if asked.Add(1) == 3 {
			cancel()
		}
		return Status{}, errors.New("never again")
	}})
	if _, _, err := NewClient(path).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestNoService(t *testing.T) {
	t.Parallel()
	path := socket(t)
	c := NewClient(path)
	if _, _, err := c.Status(within(t)); !errors.Is(err, ErrNoService) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if _, err := c.Upgrade(within(t), WaitServe, nil); !errors.Is(err, ErrNoService) {
		t.Errorf("%v", err)
	}
	if _, err := c.do(within(t), http.MethodGet, "/"); !errors.Is(err, ErrNoService) {
		t.Errorf("%v", err)
	}
}

// TestUnknown: what there is not, is said.
func TestUnknown(t *testing.T) {
	t.Parallel()
	path := socket(t)
	serve(t, path, &fake{})
	for method, want := range map[string]string{http.MethodGet: "405 Method Not Allowed", http.MethodDelete: "405 Method Not Allowed"} {
		if _, err := NewClient(path).do(within(t), method, "/v1/upgrade"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, err := NewClient(path).do(within(t), http.MethodGet, "/v2/status"); err == nil || !strings.Contains(err.Error(), "404 Not Found") {
		t.Errorf("%v", err)
	}
}

// TestPause: whoever comes meanwhile waits, and is answered by the next, who has the
// same socket.
func TestPause(t *testing.T) {
	t.Parallel()
	path := socket(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	held, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	s := NewServer(&fake{}, slog.New(slog.DiscardHandler))
	s.Serve(ln)
	defer s.Close()
	s.Pause()
	s.Pause() // nothing
	got := make(chan error, 1)
	go func() { _, _, err := NewClient(path).Status(within(t)); got <- err }()
	next, err := net.FileListener(held)
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(&fake{status: func() (Status, error) { return status, nil }}, slog.New(slog.DiscardHandler))
	s.Serve(next)
	defer s.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestPeer: the socket's mode is one thing, who asks is another.
func TestPeer(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	path := socket(t)
	serve(t, path, &fake{status: func() (Status, error) { return status, nil }})
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	ask := func(uid uint32) string { return as(t, uid, uid, "ask", path) }
	if got := ask(0); got != `"shop" <nil>` {
		t.Error(got)
	}
	want := path + ": refused: 403 Forbidden: user 65534 may not control this service, only user 0 and root may"
	if got := ask(65534); got != `"" `+want {
		t.Errorf(" got %s\nwant %s", got, want)
	}
	// Without the right to connect it is not even heard.
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ask(65534); !strings.Contains(got, "only the service's user and root may ask") {
		t.Error(got)
	}
}

// as has another user ask, or act.
func as(t *testing.T, uid, gid uint32, what, path string) string {
	t.Helper()
	cmd := exec.CommandContext(within(t), "/proc/self/exe", path)
	cmd.Env = append(os.Environ(), envChild+"="+what, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(out))
}

// TestShare: a group may read, and nobody else may even connect.
func TestShare(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	path := socket(t)
	if err := Share(path, 4242); err == nil || !strings.Contains(err.Error(), "it is no socket") {
		t.Error(err)
	}
	f := &fake{wishes: make(chan Wish, 1), watchers: make(chan *Watcher, 1), status: func() (Status, error) { return status, nil }}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(f, slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.LetRead()
	s.Serve(ln)
	t.Cleanup(s.Close)
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), Share(path, 4242)); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeSocket|0o660 || st.Sys().(*syscall.Stat_t).Gid != 4242 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if got := as(t, 65534, 4242, "ask", path); got != `"shop" <nil>` {
		t.Error(got)
	}
	if got := as(t, 65534, 4242, "act", path); !strings.HasSuffix(got, ": refused: 403 Forbidden: user 65534 may only read here, not act: only user 0 and root may") {
		t.Error(got)
	}
	if got := as(t, 65534, 65534, "ask", path); !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
	if err := Share(path, -1); err != nil {
		t.Fatal(err)
	}
	if got := as(t, 65534, 4242, "ask", path); !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
	if len(f.wishes) > 0 {
		t.Errorf("%+v was asked for", <-f.wishes)
	}
}

// TestUpgradeBody: a request that asks for an upgrade with a body is told why not.
func TestUpgradeBody(t *testing.T) {
	t.Parallel()
	path := socket(t)
	serve(t, path, &fake{})
	c := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dial(path) }, DisableKeepAlives: true,
	}}
	resp, err := c.Post("http://handover/v1/upgrade", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Error(resp.Status)
	}
}
