package sdtest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/sdtest"
)

// built is the command, which needs no libraries of the distribution it runs on.
var built = sync.OnceValues(func() (binary []byte, err error) {
	dir, err := os.MkdirTemp("", "sdtest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "handover")
	cmd := exec.Command("go", "build", "-race=false", "-o", bin, "github.com/handover-go/handover/cmd/handover")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(bin)
})

// shop is a service under systemd, as its operator sees it.
type shop struct {
	t    *testing.T
	m    *sdtest.Machine
	dir  string // of its binaries, the same on the host and in the machine
	bin  string // what the unit starts, to be exchanged
	addr string // of its http socket
}

const unit = "shop.service"

// newShop makes what a unit needs; install writes it.
func newShop(t *testing.T, m *sdtest.Machine) *shop {
	t.Helper()
	dir := m.TempDir(t)
	s := &shop{t: t, m: m, dir: dir, bin: filepath.Join(dir, "handover"), addr: freeAddr(t, "tcp")}
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	// Who asks for a reload is not what is being released.
	for _, name := range []string{"ctl", "real"} {
		if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.good()
	return s
}

// start installs the units and starts them, the service last. In their texts {dir} and
// {addr} stand for the shop's.
func (s *shop) start(units map[string]string) {
	s.t.Helper()
	var sockets []string
	for name, text := range units {
		units[name] = s.text(text)
		if strings.HasSuffix(name, ".socket") {
			sockets = append(sockets, name)
		}
	}
	s.m.Install(s.t, units)
	if len(sockets) > 0 {
		s.m.Must(s.t, append([]string{"start"}, sockets...)...)
	}
	s.m.Must(s.t, "start", unit)
}

// text is a unit's.
func (s *shop) text(text string) string {
	return strings.NewReplacer("{dir}", s.dir, "{addr}", s.addr).Replace(text)
}

// plainUnit is the service's unit, with more lines for its section [Service].
func plainUnit(run string, more ...string) string {
	return `[Service]
Type=notify
ExecStart={dir}/handover run --name shop --workers 2 --upgrade-timeout 1s ` + run + `
ExecReload={dir}/ctl upgrade --wait serve --name shop
RuntimeDirectory=shop
Restart=always
` + strings.Join(more, "\n") + "\n"
}

// release exchanges the program by rename, as a deployment does.
func (s *shop) release(way func(tmp string) error) {
	s.t.Helper()
	tmp := s.bin + ".new"
	err := way(tmp)
	// A process that was forked while the file was open for writing has it open, too, until it
	// executes its own, and nobody could execute it (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err == nil {
		err = os.Rename(tmp, s.bin)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) good() {
	s.t.Helper()
	program, err := built()
	if err != nil {
		s.t.Fatal(err)
	}
	s.release(func(tmp string) error { return os.WriteFile(tmp, program, 0o755) })
}

func (s *shop) script(text string) {
	s.t.Helper()
	s.release(func(tmp string) error { return os.WriteFile(tmp, []byte("#!/bin/sh\n"+text+"\n"), 0o755) })
}

// show is a property of the service.
func (s *shop) show(property string) string { s.t.Helper(); return s.m.Show(s.t, unit, property) }

// same fails the test if systemd has restarted the service, or takes it for anything
// other than running.
func (s *shop) same(invocation string) {
	s.t.Helper()
	for property, want := range map[string]string{"NRestarts": "0", "ActiveState": "active", "SubState": "running", "InvocationID": invocation} {
		if got := s.show(property); got != want {
			s.t.Errorf("%s is %s, not %s", property, got, want)
		}
	}
}

// reload asks systemd for a reload that has to succeed, and be one.
func (s *shop) reload() {
	s.t.Helper()
	before := s.show("MainPID")
	if out, code := s.m.Systemctl("reload", unit); code != 0 {
		s.t.Fatalf("reload of a good release: exit code %d: %s", code, out)
	}
	if pid := s.show("MainPID"); pid == before || s.comm(pid) == "" {
		s.t.Fatalf("after the reload MainPID is %s, and was %s", pid, before)
	}
}

// comm is the name of a process of the machine, or "".
func (s *shop) comm(pid string) string {
	n, err := strconv.Atoi(pid)
	if err != nil || n == 0 {
		return ""
	}
	out, code := s.m.Exec("cat", "/proc/"+pid+"/comm")
	if code != 0 {
		return ""
	}
	return strings.TrimSpace(out)
}

// fails asks for a reload that has to fail, and change nothing. The journal is to have
// the reason.
func (s *shop) fails(want string) {
	s.t.Helper()
	said := strings.Count(s.m.Journal(unit), want)
	s.refused()
	s.until(func() string {
		if j := s.m.Journal(unit); strings.Count(j, want) <= said {
			return fmt.Sprintf("the journal does not say %q again: %s", want, j)
		}
		return ""
	})
}

// refused is fails without a look at the journal.
func (s *shop) refused() {
	s.t.Helper()
	before := s.show("MainPID")
	if out, code := s.m.Systemctl("reload", unit); code == 0 {
		s.t.Fatalf("reload of a bad release: exit code 0: %s", out)
	}
	if pid := s.show("MainPID"); pid != before {
		s.t.Fatalf("after a reload that failed MainPID is %s, and was %s", pid, before)
	}
}

// until looks again and again until there is nothing to complain of.
func (s *shop) until(complaint func() string) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		what := complaint()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal(what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// load is strict clients of all kinds that the built-in app serves.
func (s *shop) load(rate float64) *load.Load {
	s.t.Helper()
	return s.loadOf(load.Config{Rate: rate, Clients: map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1, load.Stream: 1, load.KeepAlive: 4}})
}

func (s *shop) loadOf(cfg load.Config) *load.Load {
	s.t.Helper()
	cfg.Addr, cfg.WaitReady, cfg.SlowMS, cfg.StreamMS, cfg.UploadMS = s.addr, 20*time.Second, 100, 100, 100
	l, err := load.Start(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// check is the verdict on a load: nothing failed, nothing was closed, and something was
// asked, also after the last reload.
func (s *shop) check(l *load.Load) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil {
		s.t.Error(err)
	}
	r := l.Stop()
	if err := r.Check(); err != nil {
		s.t.Errorf("clients noticed: %v", err)
	}
	s.t.Logf("%d requests, p99 %v, max %v, %d processes answered", r.Started, r.Latency.P99, r.Latency.Max, len(r.Workers))
}

// freeAddr is an address on which nothing listens now, and that no client is given as
// its own meanwhile: ip(7), ip_local_port_range.
func freeAddr(t *testing.T, network string) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if network == "udp" {
			if c, err := net.ListenPacket("udp", addr); err == nil {
				c.Close()
				return addr
			}
		} else if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}
