//go:build linux

package workerset_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/workerset"
)

// Not parallel, nor are those below: descriptors are counted.
func TestGarbage(t *testing.T) {
	for _, c := range []struct{ do, cause, reason string }{
		{"not JSON", "channel", `not JSON: "hello"`},
		{"not JSON at start", "channel", `not JSON: "hello"`},
		{"wrong types", "channel", "NODE_HANDOVER_STATE: json: cannot unmarshal"},
		{"line over the cap", "channel", "more than the cap of 1048576 bytes"},
		{"descriptors", "channel", "3 descriptors that no message announced"},
		{"descriptors, no end", "channel", "descriptors"},
		{"half a line, killed", "signal", "killed by SIGKILL"},
		{"closes its channel", "channel", "closed its channel"},
	} {
		t.Run(c.do, func(t *testing.T) {
			noLeak(t)
			h := newSet(t, func(cfg *workerset.Config) {
				cfg.Groups[0].Env = []string{do(c.do)}
				cfg.Groups[0].DrainTimeout = time.Millisecond
			}).start()
			h.state(2, "serving")
			w := h.state(1, "exited")
			if w.Cause != c.cause || !strings.Contains(w.Reason, c.reason) {
				t.Errorf("got %q, %q", w.Cause, w.Reason)
			}
			if st := h.status(); st.Failures != 1 || st.Restarts != 1 || len(st.Workers) != 1 {
				t.Errorf("%+v", st)
			}
			if n := strings.Count(h.log.String(), "worker sent garbage"); n > 1 {
				t.Errorf("said %d times", n)
			}
			h.get("/")
			h.stop()
		})
	}
}

// TestChannelOutlivesWorker: the end of a worker does not wait for those who hold its
// channel.
func TestChannelOutlivesWorker(t *testing.T) {
	noLeak(t)
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("leaves a child")} }).start()
	if w := h.state(1, "exited"); w.Cause != "signal" || w.Exit != "killed by SIGKILL" {
		t.Errorf("%+v", w)
	}
	h.state(2, "serving")
	b, err := os.ReadFile(h.out)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscanf(string(b), "child %d", &child); err != nil {
		t.Fatal(err)
	}
	// It saw the end of the channel, and is this process's now.
	if _, err := unix.Wait4(child, nil, 0, nil); err != nil {
		t.Error(err)
	}
	h.stop()
}

func TestHarmlessMessages(t *testing.T) {
	noLeak(t)
	for _, what := range []string{"other messages", "absurd numbers"} {
		h := newSet(t, func(c *workerset.Config) {
			c.Groups[0].Env = []string{do(what)}
			c.Groups[0].DrainTimeout = time.Millisecond
		}).serve()
		if r := h.stop(); r.Cut != 0 {
			t.Errorf("%s: %+v", what, r)
		}
		if log := h.log.String(); strings.Contains(log, "garbage") || h.started()[len(h.started())-1] != 1 {
			t.Errorf("%s:\n%s", what, log)
		}
	}
}

func TestEnvironment(t *testing.T) {
	noLeak(t)
	dir := t.TempDir()
	other, _ := heldSocket(t)
	mine := map[string]string{
		"NOTIFY_SOCKET": "/run/notify", "LISTEN_FDS": "7", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b", "WATCHDOG_PID": "1",
		"WATCHDOG_USEC": "1000", "TABLEFLIP_HAS_PARENT_7DIU3": "yes", "HANDOVER_ROLE": "parent", "HANDOVER_ANCHOR_PID": "1", "HANDOVER_LISTEN": "tcp://:1",
		"HANDOVER_SUCCESSION_FD": "9", "HANDOVER_ACCEPT": "0", "HANDOVER_WORKER": "x", "HANDOVER_CHANNEL_FD": "77",
		"NODE_CHANNEL_FD": "77", "GOMAXPROCS": "77",
	}
	h := newSet(t, func(c *workerset.Config) {
		for k, v := range mine {
			c.Program.Env = append(c.Program.Env, k+"="+v)
		}
		c.Sockets["admin"] = other
		c.CPUs = 3
		c.Groups[0].Count = 2
		c.Groups[0].Env = []string{envDump + "=" + dir, "COLOUR=red", "COLOUR=blue", do("always:other messages")}
		c.Groups[0].DrainTimeout = time.Millisecond
		second := c.Groups[0]
		second.Name, second.Count, second.Sockets = "admin", 1, []string{"admin"}
		second.Env = append(slices.Clone(second.Env), "GOMAXPROCS=2", envDump+"="+filepath.Join(dir, "admin"))
		c.Groups = append(c.Groups, second)
		if err := os.Mkdir(filepath.Join(dir, "admin"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	h.serve()
	for file, want := range map[string][]string{
		"1":       {"HANDOVER_WORKER=web/1/1/1", "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:http", "HANDOVER_CHANNEL_FD=5", "GOMAXPROCS=2", "COLOUR=blue", "HANDOVER_ACCEPT=1"},
		"2":       {"HANDOVER_WORKER=web/2/2/1", "LISTEN_FDS=2", "HANDOVER_CHANNEL_FD=5", "GOMAXPROCS=1"},
		"admin/1": {"HANDOVER_WORKER=admin/1/1/1", "LISTEN_FDS=1", "LISTEN_FDNAMES=admin", "HANDOVER_CHANNEL_FD=4", "GOMAXPROCS=2"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		env := strings.Split(string(b), "\n")
		for _, kv := range want {
			if !slices.Contains(env, kv) {
				t.Errorf("worker %s has no %s", file, kv)
			}
		}
		for _, kv := range env {
			k, v, _ := strings.Cut(kv, "=")
			if mine[k] == v && v != "" {
				t.Errorf("worker %s has the parent's %s", file, kv)
			}
		}
	}
	for _, fd := range []int{h.sock, other} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("socket %d is blocking now: flags %#x, %v", fd, flags, err)
		}
	}
	h.stop()
}

func TestBadConfig(t *testing.T) {
	noLeak(t)
	sock, _ := heldSocket(t)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	type config = workerset.Config
	for want, change := range map[string]func(*config){
		`no group`:                                  func(c *config) { c.Groups = nil },
		`group name ""`:                             func(c *config) { c.Groups[0].Name = "" },
		`group name "a/b"`:                          func(c *config) { c.Groups[0].Name = "a/b" },
		`group name "a:b"`:                          func(c *config) { c.Groups[0].Name = "a:b" },
		`group name "a b"`:                          func(c *config) { c.Groups[0].Name = "a b" },
		`group name "a\x00b"`:                       func(c *config) { c.Groups[0].Name = "a\x00b" },
		`group "web" is there twice`:                func(c *config) { c.Groups = append(c.Groups, c.Groups[0]) },
		`group "web": count 0, at least 1`:          func(c *config) { c.Groups[0].Count = 0 },
		`group "web": count -2, at least 1`:         func(c *config) { c.Groups[0].Count = -2 },
		`group "web": surge -1`:                     func(c *config) { c.Groups[0].Surge = -1 },
		`start timeout -1s`:                         func(c *config) { c.Groups[0].StartTimeout = -time.Second },
		`drain timeout -1s`:                         func(c *config) { c.Groups[0].DrainTimeout = -time.Second },
		`environment entry "PATH"`:                  func(c *config) { c.Groups[0].Env = []string{"PATH"} },
		`group "web": there is no socket "https"`:   func(c *config) { c.Groups[0].Sockets = []string{"https"} },
		`group "web": socket "http" is there twice`: func(c *config) { c.Groups[0].Sockets = []string{"http", "http"} },
		`socket name "a:b"`:                         func(c *config) { c.Sockets["a:b"] = sock },
		`socket name ""`:                            func(c *config) { c.Sockets[""] = sock },
		`socket "http", descriptor 99999: not open: bad file descriptor`: func(c *config) { c.Sockets["http"] = 99999 },
		`socket "http", descriptor -1: not open: bad file descriptor`:    func(c *config) { c.Sockets["http"] = -1 },
		`generation -1`:      func(c *config) { c.Generation = -1 },
		`-3 CPUs`:            func(c *config) { c.CPUs = -3 },
		`name "a\x00": must`: func(c *config) { c.Name = "a\x00" },
	} {
		cfg := config{Groups: []workerset.Group{{Name: "web", Count: 1}},
			Sockets: map[string]int{"http": sock, "file": int(file.Fd()), "stream": pair[0]}} // what is open will do
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		set, err := workerset.New(cfg)
		if set != nil || !isConfigError(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
		if verr := cfg.Validate(); verr == nil || verr.Error() != err.Error() {
			t.Errorf("Validate: %v", verr)
		}
	}
}
