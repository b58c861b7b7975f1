package handover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/run"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/upgrader"
)

// soloName is the test binary as a service of one process.
const soloName = "solo"

func init() { mains[soloName] = soloMain }

func soloMain() {
	if os.Getenv("TEST_ANCHOR") != "" {
		if err := upgrader.Anchor("solo"); err != nil {
			panic(err)
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	up, err := upgrader.New(upgrader.Config{PIDFile: os.Getenv("TEST_PIDFILE"), Logger: quiet()})
	if err != nil {
		panic(err)
	}
	network, addr, ok := strings.Cut(os.Getenv("TEST_LISTEN"), "://")
	if !ok {
		network, addr = "tcp", network
	}
	ln, err := up.Listen("http", network, addr)
	if err != nil {
		panic(err)
	}
	who := fmt.Sprintf("solo generation=%d pid=%d", up.Generation(), os.Getpid())
	ctx, cancel := context.WithCancel(context.Background())
	configured, shut := configuredServer(who)
	var srv drain.Server = configured
	switch os.Getenv("TEST_APP") {
	case "plain":
		srv = &http.Server{Handler: http.HandlerFunc(plainHandler)}
		shut = ctx.Done()
	case "kv":
		srv, shut = &drain.Streams{Handler: serveKeys}, ctx.Done()
	case "wrapped":
		ln = proxied{ln}
	}
	var server drain.Server = srv
	if os.Getenv("TEST_APP") == "tls" {
		srv, keys := soloTLS(up, who)
		defer keys.Close()
		server, shut = srv, ctx.Done()
	}
	var g run.Group
	g.Add(drain.Actor(server, ln, drain.Config{Successor: up, Logger: log}))
	g.Add(up.Actor())
	g.Add(signals.Actor(ctx, signals.Map{syscall.SIGTERM: signals.Stop,
		syscall.SIGHUP: func(ctx context.Context) error {
			err := up.Upgrade(ctx)
			log.Info("upgraded", "err", err)
			return err
		}}, signals.Logger(quiet())))
	log.Info("started", "listen", ln.Addr())
	if err := g.Run(); err != nil && !errors.Is(err, signals.ErrStop) {
		log.Error("failed", "err", err)
		os.Exit(1)
	}
	cancel()
	<-shut
}

// startSolo starts a service of one process, on a socket such as "tcp://127.0.0.1:0".
func startSolo(t testing.TB, listen string, env ...string) *service {
	t.Helper()
	dir := t.TempDir()
	bin, pidFile := filepath.Join(dir, soloName), filepath.Join(dir, "pid")
	install(t, bin)
	cmd := exec.Command(bin)
	cmd.Env = append(env, "TEST_LISTEN="+listen, "TEST_PIDFILE="+pidFile)
	s := startCommand(t, cmd)
	s.bin, s.pidFile, s.solo = bin, pidFile, true
	s.addr = match(s.await(has("msg=started")), `listen=(\S+)`)
	until(t, 30*time.Second, func() string { // it is there when the process is ready
		if _, err := os.Stat(pidFile); err != nil {
			return err.Error()
		}
		return ""
	})
	t.Cleanup(func() {
		if !s.ended { // that of a test that failed
			_ = s.end(syscall.SIGKILL)
		}
	})
	return s
}

// end ends the process that serves now: the first one, or one that an upgrade started and
// whose parent this process is then, as subreaper.
func (s *service) end(sig syscall.Signal) error {
	s.t.Helper()
	pid := s.parent()
	if err := syscall.Kill(pid, sig); err != nil {
		return err
	}
	if pid == s.cmd.Process.Pid {
		<-s.exited
		s.ended = true
		if !s.cmd.ProcessState.Success() {
			return errors.New(s.cmd.ProcessState.String())
		}
		return nil
	}
	var failure error
	until(s.t, 30*time.Second, func() string {
		var status unix.WaitStatus
		switch done, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); {
		case err != nil: // it is not ours yet: the process before it drains
			return err.Error()
		case done == 0:
			return "it has not ended"
		default:
			s.ended = true
		}
		if status != 0 {
			failure = fmt.Errorf("status %#x", status)
		}
		return ""
	})
	return failure
}

// proxied is a listener like that of the PROXY protocol: the first line that comes on a
// connection says who it is from.
type proxied struct{ net.Listener }

func (p proxied) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var from []byte
	for b := make([]byte, 1); ; {
		if _, err := c.Read(b); err != nil {
			c.Close()
			return nil, err
		}
		if b[0] == '\n' {
			break
		}
		from = append(from, b[0])
	}
	_ = c.SetReadDeadline(time.Time{})
	addr, err := net.ResolveTCPAddr("tcp", string(from))
	return fromConn{c.(*net.TCPConn), addr}, err
}

// SetDeadline is needed by who ends an Accept.
func (p proxied) SetDeadline(t time.Time) error {
	return p.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
}

type fromConn struct {
	*net.TCPConn
	from net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.from }
