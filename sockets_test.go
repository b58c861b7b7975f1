package handover_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// bound are the addresses of a service's sockets by name, from its log.
func (s *service) bound() map[string]string {
	s.t.Helper()
	m := map[string]string{}
	list := match(s.await(has("msg=started")), `listen="?([^"\s]+)`)
	for _, l := range strings.Split(list, ",") {
		name, url, _ := strings.Cut(l, "=")
		_, addr, _ := strings.Cut(url, "://")
		m[name] = addr
	}
	return m
}

// datagrams is a client of a socket for packets. It has one question under way.
type datagrams struct {
	net.Conn
	asked int
	who   map[string]int // "generation=N" of the answers
}

func newDatagrams(t *testing.T, network, addr string) *datagrams {
	t.Helper()
	var d net.Dialer
	if network == "unixgram" {
		d.LocalAddr = &net.UnixAddr{Name: addr + ".client", Net: network}
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &datagrams{Conn: c, who: map[string]int{}}
}

func (d *datagrams) ask() error {
	d.asked++
	if _, err := d.Write([]byte("who?")); err != nil {
		return err
	}
	_ = d.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 200)
	n, err := d.Read(b)
	if err != nil {
		return fmt.Errorf("question %d was not answered: %w", d.asked, err)
	}
	g := match(string(b[:n]), `^web/\d+ id=\d+ (generation=\d+) pid=\d+: who\?\n$`)
	if g == "" {
		return fmt.Errorf("question %d was answered %q", d.asked, b[:n])
	}
	d.who[g]++
	return nil
}

// until asks until something has happened, and once more.
func (d *datagrams) until(done <-chan struct{}) error {
	for {
		if err := d.ask(); err != nil {
			return err
		}
		select {
		case <-done:
			return d.ask()
		default:
		}
	}
}

// over checks that nothing more arrives from a service that has ended.
func (d *datagrams) over(t *testing.T) {
	t.Helper()
	rc, err := d.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) {
		b := make([]byte, 200)
		if n, _, _ := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); n > 0 {
			t.Errorf("an answer that nobody asked for: %q", b[:n])
		}
	})
}

// The built-in app serves every kind of socket over upgrades, and nobody who asks
// misses an answer.
func TestSocketsOverUpgrades(t *testing.T) {
	dir := t.TempDir()
	gram, seq := filepath.Join(dir, "g"), filepath.Join(dir, "s")
	s := startService(t, 2, "TEST_LISTEN=http=tcp://127.0.0.1:0,dns=udp://127.0.0.1:0,log=unixgram://"+gram+",s=unixpacket://"+seq)
	l := s.load(20)
	clients := []*datagrams{newDatagrams(t, "udp", s.bound()["dns"]), newDatagrams(t, "unixgram", gram)}
	done, asked := make(chan struct{}), make(chan error, len(clients))
	for _, c := range clients {
		go func() { asked <- c.until(done) }()
	}
	before := parentFDs(t, s)
	for i := range 5 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
		greeted(t, seq, fmt.Sprintf("generation=%d ", i+2))
	}
	close(done)
	for range clients {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}
	check(t, l)
	if n := parentFDs(t, s); n > before+4 {
		t.Errorf("the parent had %d descriptors, and has %d after 5 upgrades", before, n)
	}
	s.stop()
	for _, c := range clients {
		c.over(t)
		t.Logf("%d datagrams, answered by %v", c.asked, c.who)
		if c.who["generation=6"] == 0 {
			t.Error("the last generation has answered none")
		}
	}
	for _, path := range []string{gram, seq} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// greeted connects to a unixpacket socket until the one that answers is wanted: whoever
// drains may answer for a moment.
func greeted(t *testing.T, path, want string) {
	t.Helper()
	until(t, 30*time.Second, func() string {
		c, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 200)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(b[:n]); !strings.Contains(got, want) {
			return fmt.Sprintf("%q, want %s", got, want)
		}
		return ""
	})
}

// supervised starts the service as systemd does: with sockets, and its pid in
// LISTEN_PID.
func supervised(t *testing.T, names string, files []*os.File, env ...string) *service {
	t.Helper()
	env = append(env, fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+names)
	return startServiceBy(t, func(bin string) *exec.Cmd { return activated(bin, files) }, 1, env...)
}

func activated(bin string, files []*os.File) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, bin)
	cmd.ExtraFiles = files
	return cmd
}

// filer is what has a copy of its descriptor.
type filer interface{ File() (*os.File, error) }

func fileOf(t *testing.T, c filer) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A supervisor's sockets arrive where they are asked for, by name or by address,
// through the anchor or without one; the others are closed everywhere.
func TestActivation(t *testing.T) {
	for _, way := range []string{"", "TEST_NO_ANCHOR=1"} {
		t.Run(way, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			dns, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer dns.Close()
			extra, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "extra"), Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer extra.Close()
			files := []*os.File{fileOf(t, ln.(*net.TCPListener)), fileOf(t, dns.(*net.UDPConn)), fileOf(t, extra)}
			s := supervised(t, "http:shop.socket:extra", files,
				way, "TEST_LISTEN=http=tcp://127.0.0.1:1,dns=udp://"+dns.LocalAddr().String())
			if got := s.bound(); got["http"] != ln.Addr().String() || got["dns"] != dns.LocalAddr().String() {
				t.Errorf("bound to %v", got)
			}
			line := s.await(has("level=WARN", "LISTEN_FDS"))
			if want := `descriptors="extra (descriptor 5, unix ` + extra.Addr().String() + `)"`; !strings.Contains(line, want) {
				t.Errorf("no %s in %s", want, line)
			}
			c := newDatagrams(t, "udp", dns.LocalAddr().String())
			// A worker that was told to drain may answer for a moment.
			serves := func(generation string) {
				t.Helper()
				until(t, 20*time.Second, func() string {
					resp, err := http.Get("http://" + ln.Addr().String() + "/")
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					if err := c.ask(); err != nil {
						t.Fatal(err)
					}
					if who := resp.Header.Get("X-Worker"); !strings.Contains(who, generation) || c.who[generation] == 0 {
						return fmt.Sprintf("%q and %v answered, want %s", who, c.who, generation)
					}
					return ""
				})
			}
			serves("generation=1")
			own, err := procs.FDs(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range append(s.workers(), s.cmd.Process.Pid, s.parent()) {
				fds, err := procs.FDs(pid)
				if err != nil {
					t.Fatal(err)
				}
				for fd, to := range fds {
					if to == own[int(files[2].Fd())] {
						t.Errorf("process %d has the socket that nobody wants as descriptor %d", pid, fd)
					}
				}
			}
			if way == "" { // else what was started would end with the upgrade
				s.upgrade()
				serves("generation=2")
			}
			s.stop()
			// Its supervisor has it still.
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
}

// A supervisor's socket of the wrong kind is named together with what is wanted.
func TestActivationBad(t *testing.T) {
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	bin := filepath.Join(t.TempDir(), serviceName)
	install(t, bin)
	cmd := activated(bin, []*os.File{fileOf(t, dns.(*net.UDPConn))})
	cmd.Env = []string{"TEST_WORKERS=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=http"}
	s := startCommand(t, cmd)
	s.await(has(`service: open socket http=tcp://127.0.0.1:0: LISTEN_FDS: descriptor 3, "http": wrong kind of descriptor: it is a udp socket, and http=tcp://127.0.0.1:0 asks for a tcp socket`))
	s.awaitExit(1)
}
