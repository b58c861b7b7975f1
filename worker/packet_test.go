//go:build linux

package worker_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
)

// bind is a socket as a parent or a supervisor holds it.
func bind(t *testing.T, spec string) (fd int, addr string) {
	t.Helper()
	s, err := listen.Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	if fd, err = s.Bind(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, listen.Addr(fd).String()
}

// peer is a client of a packet socket.
type peer struct {
	t *testing.T
	net.Conn
}

func newPeer(t *testing.T, network, addr string) peer {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	if network == "unixgram" {
		d.LocalAddr = &net.UnixAddr{Name: addr + ".client", Net: network}
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return peer{t, c}
}

func (p peer) say(what string) {
	p.t.Helper()
	if _, err := p.Write([]byte(what)); err != nil {
		p.t.Fatal(err)
	}
}

func (p peer) hears(what string) {
	p.t.Helper()
	b := make([]byte, 100)
	_ = p.SetReadDeadline(time.Now().Add(patience))
	n, err := p.Read(b)
	if got := string(b[:n]); got != what {
		p.t.Fatalf("answer %q, %v, want %q", got, err, what)
	}
}

// queued takes a packet that nobody has read from the socket itself.
func queued(t *testing.T, fd int, want string) {
	t.Helper()
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
	if err != nil || string(b[:n]) != want {
		t.Errorf("in the queue: %q, %v, want %q", b[:max(n, 0)], err, want)
	}
}

// A worker reads packets from its parent's word on until its drain, and answers what
// it has read; the others stay for other workers.
func TestPackets(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "unixgram"} {
		for _, app := range []string{"packets", "late"} {
			t.Run(network+", "+app, func(t *testing.T) {
				t.Parallel()
				addr := "127.0.0.1:0"
				if network == "unixgram" {
					addr = filepath.Join(t.TempDir(), "p")
				}
				fd, addr := bind(t, network+"://"+addr)
				c := newPeer(t, network, addr)
				p := begin(t, spec{app: app, env: []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=http"}, first: fd})
				p.phase(wire.PhaseReady) // taken is as good as served
				c.say("early")
				queued(t, fd, "early")
				p.tell(wire.CmdGo)
				p.phase(wire.PhaseServing)
				c.say("first")
				if app == "packets" {
					c.hears("first")
				}
				p.until(func(st wire.State) bool { return st.Served == 1 })
				p.drain(0, true)
				if app == "late" {
					c.hears("first")
				}
				p.exits("exit status 0")
				c.say("afterwards")
				queued(t, fd, "afterwards")
			})
		}
	}
}

// A worker with sockets of several kinds is ready when all are served, or taken.
func TestMixed(t *testing.T) {
	t.Parallel()
	tcp, addr := bind(t, "tcp://127.0.0.1:0")
	udp, packets := bind(t, "udp://127.0.0.1:0")
	name := filepath.Join(t.TempDir(), "log")
	log, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(log)
	p := begin(t, spec{app: "mixed", sockets: []string{"udp", "log", "tcp"}, fds: map[string]int{"udp": udp, "log": log, "tcp": tcp},
		env: []string{"LISTEN_FDNAMES=http:log:admin"}})
	p.phase(wire.PhaseReady)
	p.tell(wire.CmdGo)
	p.phase(wire.PhaseServing)
	c := newPeer(t, "udp", packets)
	c.say("x")
	c.hears("x")
	p.socks["http"] = addr
	p.get("/")
	p.drain(0, true)
	p.exits("exit status 0")
	out := p.output()
	for _, want := range []string{"http is udp\n", "log is file\n", "admin is tcp\n", "nothing is \n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "a line\n" {
		t.Errorf("%q, %v", b, err)
	}
	// Who leaves one alone is not ready.
	p = begin(t, spec{app: "packets", sockets: []string{"udp", "log"}, fds: map[string]int{"udp": udp, "log": log},
		env: []string{"LISTEN_FDNAMES=http:log"}})
	p.control()
	p.phase(wire.PhaseStarting) // it speaks: its signals are caught
	p.signal(syscall.SIGTERM)
	p.drain(0, true)
	p.exits("exit status 0")
	for _, st := range p.states {
		if st.Phase == wire.PhaseReady || st.Phase == wire.PhaseServing {
			t.Errorf("%+v", st)
		}
	}
}

// Without a parent a worker binds packet sockets itself, and cleans up.
func TestAlonePackets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p")
	if fd, err := (listen.Spec{Name: "x", Network: "unixgram", Addr: path}).Bind(); err != nil {
		t.Fatal(err)
	} else {
		unix.Close(fd) // and leaves its file
	}
	for network, addr := range map[string]string{"udp": "127.0.0.1:0", "unixgram": path} {
		p := begin(t, spec{app: "packets", alone: true, env: []string{envListen + "=http=" + network + "://" + addr}})
		c := newPeer(t, network, p.control())
		c.say("x")
		c.hears("x")
		p.signal(syscall.SIGTERM)
		p.exits("exit status 0")
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket's file is left: %v", err)
	}
	for listens, want := range map[string]string{
		"http=tcp://127.0.0.1:0": `socket "http": wrong kind of descriptor: it is of the network tcp, use Serve, Listener or File`,
		"log=tcp://127.0.0.1:0":  `no socket "http": this worker has "log"`,
	} {
		p := begin(t, spec{app: "packets", alone: true, env: []string{envListen + "=" + listens}})
		p.exits("exit status 1")
		if out := p.output(); !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	p := begin(t, spec{app: "mixed", alone: true, env: []string{envListen + "=log=tcp://127.0.0.1:0"}})
	p.exits("exit status 1")
	if want := `socket "log": wrong kind of descriptor: it is to be bound, use Serve, Listener or PacketConn`; !strings.Contains(p.output(), want) {
		t.Errorf("no %s in\n%s", want, p.output())
	}
}

// Without a parent a worker takes what a supervisor has bound.
func TestActivation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "p")
	gram, _ := bind(t, "unixgram://"+path)
	tcp, addr := bind(t, "tcp://127.0.0.1:0")
	extra, where := bind(t, "unix://"+filepath.Join(dir, "extra"))
	log, err := unix.Open(filepath.Join(dir, "log"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(log)
	// admin by its address, http by its name.
	p := begin(t, spec{app: "mixed", alone: true, passed: []int{log, gram, tcp, extra}, env: []string{
		"LISTEN_FDS=4", "LISTEN_FDNAMES=log:http:web.socket:unknown",
		envListen + "=http=unixgram:///elsewhere,admin=tcp://" + addr,
	}})
	if got := p.control(); got != path {
		t.Errorf("served at %s", got)
	}
	c := newPeer(t, "unixgram", path)
	c.say("x")
	c.hears("x")
	p.socks["http"] = addr
	p.get("/")
	p.signal(syscall.SIGTERM)
	p.exits("exit status 0")
	out := p.output()
	if want := `descriptors="unknown (descriptor 6, unix ` + where + `)"`; strings.Count(out, "LISTEN_FDS") != 1 || !strings.Contains(out, want) {
		t.Errorf("no %s in\n%s", want, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || string(b) != "a line\n" {
		t.Errorf("%q, %v", b, err)
	}
	// The supervisor's files stay.
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestActivationBad(t *testing.T) {
	t.Parallel()
	fd, _ := bind(t, "udp://127.0.0.1:0")
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"LISTEN_FDNAMES=http"}, `worker: bad configuration: socket http=tcp://127.0.0.1:0: LISTEN_FDS: descriptor 3, "http": wrong kind of descriptor: it is a udp socket, and http=tcp://127.0.0.1:0 asks for a tcp socket`},
		{[]string{"LISTEN_FDS=x"}, `worker: bad configuration: LISTEN_FDS="x": not a count`},
		{[]string{"LISTEN_FDNAMES=a:b"}, `LISTEN_FDS=1, but LISTEN_FDNAMES="a:b" has 2 names`},
		{[]string{"LISTEN_FDS=60000"}, `LISTEN_FDS=60000: descriptor 4, "unknown", is not open`},
	} {
		t.Run(strings.Join(c.env, ","), func(t *testing.T) {
			t.Parallel()
			p := begin(t, spec{app: "serve", alone: true, passed: []int{fd}, env: append([]string{
				"LISTEN_FDS=1", envListen + "=http=tcp://127.0.0.1:0"}, c.env...)})
			p.exits("exit status 2")
			if out := p.output(); !strings.Contains(out, c.want) {
				t.Errorf("no %s in\n%s", c.want, out)
			}
		})
	}
}
