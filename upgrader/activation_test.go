//go:build linux

package upgrader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
)

// hold opens what the service does not serve: sockets for others, and files, to
// which every process appends a line.
func (s *service) hold(set settings) {
	for _, l := range set.Hold {
		spec, err := listen.Parse(l)
		check(err)
		_, err = s.up.Open(spec.Name, spec.Network, spec.Addr)
		check(err)
	}
	for _, name := range set.Files {
		f, err := s.up.File(name, func() (*os.File, error) {
			f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			if err == nil {
				fmt.Fprintln(f, "opened by", s.up.Generation())
			}
			return f, err
		})
		check(err)
		fmt.Fprintln(f, "generation", s.up.Generation())
		check(f.Close())
	}
}

// A file is opened once; later generations have the same, wherever it is by then.
func TestFileUpgrades(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{Files: []string{"log"}})
	r := s.start()
	moved := filepath.Join(s.dir, "moved")
	if err := os.Rename(filepath.Join(s.dir, "log"), moved); err != nil {
		t.Fatal(err)
	}
	before := r.stats()
	for range 3 {
		r.upgrade()
	}
	until(t, "no more descriptors than in the first process", func() bool {
		return len(r.stats().FDs) <= len(before.FDs)+2 // see TestTwentyUpgrades
	})
	b, err := os.ReadFile(moved)
	if want := "opened by 1\ngeneration 1\ngeneration 2\ngeneration 3\ngeneration 4\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
	// One that is not wanted any more is closed.
	s.configure(settings{})
	r.upgrade()
	for _, to := range r.stats().FDs {
		if strings.HasPrefix(to, moved) {
			t.Error("the file is open")
		}
	}
	r.stop()
}

// held is a socket that a supervisor has bound. It is blocking, as systemd makes
// them.
func (s *site) held(spec string) (fd int) {
	s.t.Helper()
	sp, err := listen.Parse(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	if fd, err = sp.Bind(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetNonblock(fd, false); err != nil {
		s.t.Fatal(err)
	}
	return fd
}

// pass makes the first process one that a supervisor has started with descriptors.
func (s *site) pass(names string, fds ...int) {
	s.passed = append([]int{}, fds...)
	s.env = append(s.env, fmt.Sprint("LISTEN_FDS=", len(fds)), "LISTEN_FDNAMES="+names)
}

// What a supervisor has bound is served, by whichever name or address it is found,
// over upgrades with other addresses, and its files are the supervisor's.
func TestActivation(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	path := func(name string) string { return filepath.Join(s.dir, name) }
	tcp, udp, seq := s.held("tcp://127.0.0.1:0"), s.held("udp://127.0.0.1:0"), s.held("unixpacket://"+path("seq"))
	other, extra := s.held("tcp://127.0.0.1:0"), s.held("unixgram://"+path("extra"))
	file, err := os.Create(path("kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kept, err := listen.DupConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	// http and log by name, dns and seq by address; extra is nobody's.
	s.pass("http:unknown:unknown:log:admin:web.socket", tcp, udp, seq, kept, other, extra)
	listens := func(port string) settings {
		return settings{
			Listen: []string{"tcp://127.0.0.1:" + port, "dns=udp://" + listen.Addr(udp).String(), "seq=unixpacket://" + path("seq")},
			Hold:   []string{"admin=tcp://127.0.0.1:" + port},
			Files:  []string{"log"},
		}
	}
	s.configure(listens("1"))
	r := s.start()
	r.await("closed")
	out := r.out.String()
	want := fmt.Sprintf("descriptors=\"web.socket (descriptor 8, unixgram %s)\"", path("extra"))
	if strings.Count(out, "level=WARN") != 1 || !strings.Contains(out, want) {
		t.Errorf("no %s in\n%s", want, out)
	}
	before := r.stats()
	serves := func() {
		t.Helper()
		r.serves(listen.Addr(tcp).String())
		c := newStrict(t, "udp", listen.Addr(udp).String())
		if err := c.ask(); err != nil || c.pids[0] != r.pid {
			t.Errorf("%v, %v", c.pids, err)
		}
		conn, err := net.Dial("unixpacket", path("seq"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(deadline().at())
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if got := string(b[:n]); got != strconv.Itoa(r.pid) {
			t.Errorf("%q on the unixpacket socket, %v", got, err)
		}
		st := r.stats()
		for name, fd := range map[string]int{"http": tcp, "dns": udp, "seq": seq, "admin": other} {
			if st.Addrs[name] != listen.Addr(fd).String() {
				t.Errorf("%s is at %s, not at %v", name, st.Addrs[name], listen.Addr(fd))
			}
		}
		for _, kv := range st.Env {
			if strings.HasPrefix(kv, "LISTEN_") {
				t.Errorf("the program sees %s", kv)
			}
		}
		// Nobody has made a listener of it.
		if flags, err := unix.FcntlInt(uintptr(other), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("a socket that is only held has become non-blocking: %#x, %v", flags, err)
		}
	}
	serves()
	for i := range 3 {
		s.configure(listens(strconv.Itoa(i + 2)))
		r.upgrade()
		serves()
	}
	until(t, "no more descriptors than in the first process", func() bool {
		return len(r.stats().FDs) <= len(before.FDs)+2 // see TestTwentyUpgrades
	})
	r.stop()
	if b, err := os.ReadFile(path("kept")); err != nil || string(b) != "generation 1\ngeneration 2\ngeneration 3\ngeneration 4\n" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Lstat(path("seq")); err != nil {
		t.Errorf("the supervisor's file: %v", err)
	}
	// The supervisor still has them all.
	if fd, err := unix.Dup(tcp); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
}

// A new configuration can drop a supervisor's socket; another kind under its name is
// an error there, too, and changes nothing.
func TestActivationChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	tcp := s.held("tcp://127.0.0.1:0")
	s.pass("http", tcp)
	r := s.start()
	s.configure(settings{Listen: []string{"http=unix://" + filepath.Join(s.dir, "s")}})
	a := r.tryUpgrade(r.pid, patience)
	if want := "wrong kind of descriptor: it is a tcp socket, and http=unix://"; a.Failed == nil || !strings.Contains(a.Failed.Output, want) {
		t.Errorf("no %s in %+v", want, a)
	}
	r.serves(listen.Addr(tcp).String())
	s.configure(settings{Listen: []string{"web=tcp://127.0.0.1:0"}})
	r.upgrade()
	if got := r.stats().Addrs["web"]; got == "" || got == listen.Addr(tcp).String() {
		t.Errorf("web is at %q", got)
	}
	r.stop()
}

// What is wrong with the variables is said, and what is another process's is left
// alone.
func TestActivationBad(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		env  []string
		want string // "" if it serves a socket of its own
	}{
		"wrong kind":      {[]string{"LISTEN_FDNAMES=http"}, `open socket http=tcp://127.0.0.1:0: LISTEN_FDS: descriptor 3, "http": wrong kind of descriptor: it is a udp socket, and http=tcp://127.0.0.1:0 asks for a tcp socket`},
		"no count":        {[]string{"LISTEN_FDS=one"}, `upgrader: LISTEN_FDS="one": not a count`},
		"too many":        {[]string{"LISTEN_FDS=60000"}, `upgrader: LISTEN_FDS=60000: descriptor `},
		"too many names":  {[]string{"LISTEN_FDNAMES=a:b"}, `upgrader: LISTEN_FDS=1, but LISTEN_FDNAMES="a:b" has 2 names`},
		"no pid":          {[]string{"LISTEN_PID=me"}, `upgrader: LISTEN_PID="me": not a pid`},
		"another process": {[]string{"LISTEN_PID=1", "LISTEN_FDNAMES=http"}, ""},
		"nobody's pid":    {[]string{"LISTEN_PID=", "LISTEN_FDNAMES=http"}, ""},
		"nothing":         {[]string{"LISTEN_FDS=0"}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, settings{})
			fd := s.held("udp://127.0.0.1:0")
			s.env = append([]string{"LISTEN_FDS=1"}, c.env...)
			s.passed = []int{fd}
			if slices.ContainsFunc(c.env, func(kv string) bool { return strings.HasPrefix(kv, "LISTEN_PID=") }) {
				s.runs, s.env = "with pid", append(s.env, "UPGRADER_TEST_"+c.env[0])
			}
			r := s.launch()
			if c.want != "" {
				r.awaitGone()
				if out := r.out.String(); !strings.Contains(out, c.want) {
					t.Errorf("no %s in\n%s", c.want, out)
				}
				return
			}
			r.awaitMain(r.first.Pid)
			for _, kv := range r.stats().Env {
				if strings.HasPrefix(kv, "LISTEN_") {
					t.Errorf("the program sees %s", kv)
				}
			}
			r.serves(r.addr())
			r.stop()
		})
	}
}

// withPidMain is the service, with a LISTEN_PID that is not what its starter says.
func withPidMain() {
	os.Setenv("LISTEN_PID", os.Getenv("UPGRADER_TEST_LISTEN_PID"))
	serviceMain()
}

// A unix socket's file that a supervisor's socket has stays also when the socket is
// dropped, and when a service that never was ready gives up.
func TestActivationFiles(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", "fail in order"} {
		s := newSite(t, settings{})
		path := filepath.Join(s.dir, "gram")
		s.pass("log", s.held("unixgram://"+path))
		s.configure(settings{Hold: []string{"log=unixgram:///elsewhere"}, Mode: mode})
		r := s.launch()
		if mode == "" {
			r.awaitMain(0)
			s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}})
			r.upgrade()
			r.stop()
		} else {
			r.awaitGone()
		}
		if c, err := net.Dial("unixgram", path); err != nil {
			t.Errorf("mode %q: %v", mode, err)
		} else {
			c.Close()
		}
	}
}

// A program from before there were packet sockets and files refuses them, and
// nothing has changed. (What it does not know is a network here.)
func TestUnknownNetwork(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, old := pair(t)
	send(t, old, message{Cmd: cmdSockets, Sockets: []entry{{Spec: listen.Spec{Name: "a", Network: "vsock", Addr: "2:1"}}}}, f)
	err = p.meet()
	if !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), "inherit socket a=vsock://2:1") {
		t.Error(err)
	}
	p.close()
}
