//go:build linux

package worker_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alone starts the program without a parent, on a unix socket in a directory of
// its own.
func alone(t *testing.T, app string, env ...string) (p *process, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "h") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	env = append([]string{envListen + "=http=unix://" + path}, env...)
	return begin(t, spec{app: app, alone: true, env: env}), path
}

// unixGet asks a unix socket, as soon as there is one.
func unixGet(t *testing.T, path, url string) error {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		c := http.Client{Transport: tr, Timeout: patience}
		resp, err := c.Get("http://x" + url)
		if err == nil {
			return resp.Body.Close()
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" || time.Now().After(deadline) {
			return err
		}
	}
}

func TestAlone(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			p, path := alone(t, "serve")
			if err := unixGet(t, path, "/"); err != nil {
				t.Fatal(err)
			}
			p.signal(syscall.SIGHUP) // no upgrade here, and no end
			p.writes("upgrades are its parent's")
			// No client is to end the service.
			_ = unixGet(t, path, "/panic")
			if err := unixGet(t, path, "/"); err != nil {
				t.Fatal(err)
			}
			p.signal(sig)
			p.exits("exit status 0")
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("its socket's file is left: %v", err)
			}
			if out := p.output(); !strings.Contains(out, "unlucky handler") {
				t.Error(out)
			}
		})
	}
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		p, path := alone(t, "serve")
		if err := unixGet(t, path, "/fail"); err != nil {
			t.Fatal(err)
		}
		p.exits("exit status 1")
		if out := p.output(); !strings.Contains(out, "worker main/1 failed: error: first") {
			t.Error(out)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("its socket's file is left: %v", err)
		}
	})
	t.Run("somebody else's socket", func(t *testing.T) {
		t.Parallel()
		p, path := alone(t, "serve")
		if err := unixGet(t, path, "/"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		p.signal(syscall.SIGTERM)
		p.exits("exit status 0")
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("it removed the file of another: %v", err)
		}
		// And a service that runs is not pushed aside.
		second := begin(t, spec{app: "serve", alone: true, env: []string{envListen + "=http=unix://" + path}})
		second.exits("exit status 1")
		if out := second.output(); !strings.Contains(out, "address already in use") || !strings.Contains(out, path) {
			t.Error(out)
		}
	})
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		p := begin(t, spec{app: "waits", alone: true, env: []string{envListen + "=http=tcp://127.0.0.1:0"}})
		p.signal(syscall.SIGTERM)
		p.wait()
		// Before the signals are caught it is Go's default.
		if got := p.exit.String(); !regexp.MustCompile("exit status 0|killed by SIGTERM").MatchString(got) {
			t.Error(got)
		}
	})
	t.Run("explicit", func(t *testing.T) {
		t.Parallel()
		p, path := alone(t, "explicit")
		addr := p.control()
		asked := make(chan error, 1)
		go func() { asked <- unixGet(t, path, "/") }()
		select {
		case err := <-asked:
			t.Fatalf("it answers before it is ready: %v", err)
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := <-asked; err != nil {
			t.Error(err)
		}
		p.signal(syscall.SIGTERM)
		p.exits("exit status 0")
	})
}

func TestAloneBadConfig(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"http=ip://:1":                `unknown network "ip"`,
		"nonsense":                    `listen address "nonsense"`,
		"tcp://:0,tcp://127.0.0.1:0":  `have the same name "http"`,
		"http=tcp://127.0.0.1:999999": "999999",
	} {
		t.Run(listen, func(t *testing.T) {
			t.Parallel()
			p := begin(t, spec{app: "serve", alone: true, env: []string{envListen + "=" + listen}})
			p.exits("exit status 2")
			if out := p.output(); !strings.Contains(out, want) {
				t.Errorf("want %s:\n%s", want, out)
			}
		})
	}
}
