package sdtest_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/sdtest"
)

// socketUnit is a socket that systemd binds, under a name.
func socketUnit(kind, addr, name string) string {
	return fmt.Sprintf("[Socket]\n%s=%s\nFileDescriptorName=%s\nService=%s\nSocketMode=0666\n", kind, addr, name, unit)
}

// confined is a service that may nearly nothing.
const confined = "DynamicUser=yes\nNoNewPrivileges=yes\nProtectSystem=strict\nPrivateDevices=yes\nCapabilityBoundingSet="

// TestActivation: a service without any right has sockets of all kinds that systemd has
// bound, one at a low port, and goes on having them.
func TestActivation(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.addr = lowAddr(t)
		udp := freeAddr(t, "udp")
		admin, logs, ctl := filepath.Join(s.dir, "admin"), filepath.Join(s.dir, "log"), filepath.Join(s.dir, "ctl.sock")
		s.start(map[string]string{
			"shop-http.socket":  socketUnit("ListenStream", s.addr, "http"),
			"shop-admin.socket": socketUnit("ListenStream", admin, "admin"),
			"shop-dns.socket":   socketUnit("ListenDatagram", udp, "dns"),
			"shop-log.socket":   socketUnit("ListenDatagram", logs, "log"),
			"shop-ctl.socket":   socketUnit("ListenSequentialPacket", ctl, "ctl"),
			// None of these addresses could be bound by it.
			unit: plainUnit("--listen http=tcp://127.0.0.1:1 --listen admin=unix:///nowhere/admin --listen dns=udp://127.0.0.1:1 "+
				"--listen log=unixgram:///nowhere/log --listen ctl=unixpacket:///nowhere/ctl", confined),
		})
		invocation := s.show("InvocationID")
		if uid := s.uid(s.show("MainPID")); uid == 0 {
			t.Error("the service is root")
		}
		l := s.loadOf(load.Config{Rate: 25, Unix: admin, Clients: map[load.Kind]int{load.New: 1, load.KeepAlive: 2, load.Unix: 2}})
		for generation := 1; ; generation++ {
			for network, addr := range map[string]string{"udp": udp, "unixgram": logs, "unixpacket": ctl} {
				if got := s.packet(network, addr); !strings.Contains(got, fmt.Sprintf("generation=%d ", generation)) {
					t.Errorf("%s: %q, not of generation %d", network, got, generation)
				}
			}
			if generation == 4 {
				break
			}
			s.script("echo no database >&2; exit 1")
			s.fails("no database")
			s.good()
			s.reload()
		}
		s.check(l)
		s.same(invocation)
	})
}

// TestSingle: so does one process without a parent. It is started when it serves, and
// stops in order.
func TestSingle(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.addr = lowAddr(t)
		udp := freeAddr(t, "udp")
		s.start(map[string]string{
			"shop-http.socket": socketUnit("ListenStream", s.addr, "http"),
			"shop-dns.socket":  socketUnit("ListenDatagram", udp, "dns"),
			unit:               plainUnit("--single --listen http=tcp://127.0.0.1:1 --listen dns=udp://127.0.0.1:1", confined),
		})
		invocation := s.show("InvocationID")
		if got := s.packet("udp", udp); !strings.Contains(got, "pid="+s.show("MainPID")+": who?") {
			t.Errorf("%q, not of %s", got, s.show("MainPID"))
		}
		l := s.load(25)
		s.check(l)
		s.same(invocation)
		m.Must(t, "stop", unit)
		if got := s.show("Result"); got != "success" {
			t.Errorf("after the stop Result is %s", got)
		}
	})
}

// TestLowPort: with the one right that it needs a service binds a port that only root
// may, and another one in an upgrade.
func TestLowPort(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.addr = lowAddr(t)
		more := lowAddr(t)
		s.start(map[string]string{unit: plainUnit("--listen http=tcp://{addr}",
			"DynamicUser=yes\nNoNewPrivileges=yes\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE")})
		invocation := s.show("InvocationID")
		if uid := s.uid(s.show("MainPID")); uid == 0 {
			t.Error("the service is root")
		}
		l := s.load(25)
		s.reload()
		s.script("unset HANDOVER_ARGV0; exec " + s.dir + "/real run --name shop --workers 2 --listen http=tcp://" + s.addr + " --listen more=tcp://" + more)
		s.reload()
		resp, err := http.Get("http://" + more + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		s.check(l)
		s.same(invocation)
	})
}

// lowAddr is an address that only root may bind and nobody has.
func lowAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 200+rand.IntN(800)))
		if err == nil {
			ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port below 1024")
	return ""
}

// uid is whose a process of the machine is.
func (s *shop) uid(pid string) int {
	s.t.Helper()
	inside, _ := strconv.Atoi(pid)
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.m.PID(inside)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) > 2 && fields[0] == "Uid:" {
			uid, err := strconv.Atoi(fields[2]) // the effective one
			if err != nil {
				s.t.Fatal(err)
			}
			return uid
		}
	}
	s.t.Fatal("a process without a user")
	return 0
}

// packet sends one, and returns the answer.
func (s *shop) packet(network, addr string) string {
	s.t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	if network == "unixgram" { // who is to be answered needs an address
		d.LocalAddr = &net.UnixAddr{Name: fmt.Sprintf("@handover-sdtest/%d/%d", os.Getpid(), rand.Int()), Net: network}
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if network != "unixpacket" { // there the server greets
		_, err = io.WriteString(c, "who?")
	}
	b := make([]byte, 1024)
	n := 0
	if err == nil {
		n, err = c.Read(b)
	}
	if err != nil {
		s.t.Fatalf("%s: %v", network, err)
	}
	return string(b[:n])
}
