package listen

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const self = 4711

func TestParseEnv(t *testing.T) {
	abc := Passed{{"a", 3}, {"b", 4}, {"c", 5}}
	for _, c := range []struct {
		count, names, pid  string
		supervisor, parent any // Passed, or what the error says
	}{
		{"", "", "", Passed(nil), Passed(nil)},
		{"3", "a:b:c", "4711", abc, abc},
		{"3", "a:b:c", "", Passed(nil), abc},
		{"3", "a:b:c", "4712", Passed(nil), Passed(nil)},
		{"x", "a", "4712", Passed(nil), Passed(nil)}, // what is wrong is another's
		{"0", "", "4711", Passed{}, Passed{}},
		{"", "a", "4711", Passed(nil), Passed(nil)},
		{"2", "", "4711", Passed{{"unknown", 3}, {"unknown", 4}}, `LISTEN_FDS=2, but LISTEN_FDNAMES="" has 0 names`},
		{"2", "a:a", "4711", Passed{{"a", 3}, {"a", 4}}, `LISTEN_FDNAMES="a:a": empty or repeated name "a"`},
		{"2", "a:", "4711", Passed{{"a", 3}, {"", 4}}, `LISTEN_FDNAMES="a:": empty or repeated name ""`},
		{"2", "a", "4711", `LISTEN_FDS=2, but LISTEN_FDNAMES="a" has 1 names`, `LISTEN_FDS=2, but LISTEN_FDNAMES="a" has 1 names`},
		{"0", "a", "4711", `LISTEN_FDS=0, but LISTEN_FDNAMES="a" has 1 names`, `LISTEN_FDS=0, but LISTEN_FDNAMES="a" has 1 names`},
		{"x", "a", "4711", `LISTEN_FDS="x": not a count from 0 to 65536`, `LISTEN_FDS="x": not a count from 0 to 65536`},
		{"-1", "", "4711", `LISTEN_FDS="-1": not a count from 0 to 65536`, `LISTEN_FDS="-1": not a count from 0 to 65536`},
		{"2000000000", "", "4711", `LISTEN_FDS="2000000000": not a count from 0 to 65536`, `LISTEN_FDS="2000000000": not a count from 0 to 65536`},
		{"1", "a", "me", `LISTEN_PID="me": not a pid`, `LISTEN_PID="me": not a pid`},
		{"1", "a", "0", `LISTEN_PID="0": not a pid`, `LISTEN_PID="0": not a pid`},
	} {
		for parent, want := range map[bool]any{false: c.supervisor, true: c.parent} {
			got, err := parse(c.count, c.names, c.pid, self, parent)
			if text, ok := want.(string); ok {
				if err == nil || err.Error() != text {
					t.Errorf("%+v, parent %v:\n got %v\nwant %s", c, parent, err, text)
				}
			} else if err != nil || !slices.Equal(got, want.(Passed)) {
				t.Errorf("%+v, parent %v: %v, %v", c, parent, got, err)
			}
		}
	}
}

// FuzzParseEnv checks that what is accepted is what was announced, and that it is
// read as the same when it is passed on.
func FuzzParseEnv(f *testing.F) {
	for _, s := range [][3]string{{"1", "http", "4711"}, {"2", "a:a", "4711"}, {"3", "", "4711"}, {"0", "", ""}, {"2", ":", "4711"},
		{"-1", "a", "1"}, {"99999999999999999999", "", "4711"}, {"+1", "=", "04711"}} {
		f.Add(s[0], s[1], s[2], false)
		f.Add(s[0], s[1], s[2], true)
	}
	f.Fuzz(func(t *testing.T, count, names, pid string, parent bool) {
		got, err := parse(count, names, pid, self, parent)
		if err != nil {
			if got != nil || !strings.Contains(err.Error(), "LISTEN_") {
				t.Errorf("%v, %v", got, err)
			}
			return
		}
		if got == nil {
			return
		}
		if n, err := strconv.Atoi(count); err != nil || n != len(got) || pid == "" && !parent {
			t.Errorf("LISTEN_FDS=%q, LISTEN_PID=%q: %d descriptors", count, pid, len(got))
		}
		seen := map[string]bool{}
		for i, d := range got {
			if d.Fd != 3+i || strings.Contains(d.Name, ":") || parent && (d.Name == "" || seen[d.Name]) {
				t.Errorf("descriptor %d: %+v", i, d)
			}
			seen[d.Name] = true
		}
		env := map[string]string{}
		for _, kv := range got.Env() {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		again, err := parse(env[EnvFds], env[EnvNames], "", self, true)
		if !parent {
			again, err = parse(env[EnvFds], env[EnvNames], strconv.Itoa(self), self, false)
		}
		// A single name that is empty can't be told from none.
		if err != nil || !slices.Equal(again, got) && !(len(got) == 1 && got[0].Name == "") {
			t.Errorf("%v was passed on as %v, and read as %v, %v", got, env, again, err)
		}
	})
}

// What is not open is named. (What is, is for real processes: see packages upgrader
// and worker.)
func TestNotOpen(t *testing.T) {
	t.Setenv(EnvFds, "60000")
	t.Setenv(EnvPid, strconv.Itoa(os.Getpid()))
	t.Setenv(EnvNames, "")
	t.Setenv(envPidfd, "1")
	_, err := FromSupervisor()
	if err == nil || !strings.HasPrefix(err.Error(), "LISTEN_FDS=60000: descriptor ") || !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
	for _, k := range []string{EnvFds, EnvPid, EnvNames, envPidfd} {
		if v, ok := os.LookupEnv(k); ok {
			t.Errorf("%s=%s is left", k, v)
		}
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	tcp := bindOrSkip(t, Spec{"x", "tcp", "127.0.0.1:0"})
	udp := bindOrSkip(t, Spec{"x", "udp", "127.0.0.1:0"})
	gram := bindOrSkip(t, Spec{"x", "unixgram", filepath.Join(dir, "g")})
	seq := bindOrSkip(t, Spec{"x", "unixpacket", filepath.Join(dir, "s")})
	closed, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(closed)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := DupConn(null)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	at := func(fd int) string { return Addr(fd).String() }

	for _, c := range []struct {
		what   string
		passed Passed
		spec   Spec
		want   int
		err    string
	}{
		{"by name", Passed{{"x", udp}, {"http", tcp}}, Spec{"http", "tcp6", "[::1]:1"}, tcp, ""},
		{"by address", Passed{{"unknown", udp}, {"shop.socket", tcp}}, Spec{"http", "tcp4", at(tcp)}, tcp, ""},
		{"by path", Passed{{"a", seq}, {"b", gram}}, Spec{"log", "unixgram", dir + "/./g"}, gram, ""},
		{"another kind at the path", Passed{{"a", seq}, {"b", gram}}, Spec{"log", "unix", at(gram)}, -1, ""},
		{"another address", Passed{{"unknown", tcp}}, Spec{"http", "tcp", "127.0.0.1:1"}, -1, ""},
		{"another host", Passed{{"unknown", tcp}}, Spec{"http", "tcp", strings.Replace(at(tcp), "127.0.0.1", "", 1)}, -1, ""},
		{"no address", Passed{{"unknown", tcp}}, Spec{"http", "tcp", "no-such-host.invalid:1"}, -1, ""},
		{"any port", Passed{{"unknown", tcp}}, Spec{"http", "tcp", "127.0.0.1:0"}, -1, ""},
		{"nothing", nil, Spec{"http", "tcp", ":0"}, -1, ""},
		{"several of one name: the kind", Passed{{"x", udp}, {"x", tcp}}, Spec{"x", "tcp", ":1"}, tcp, ""},
		{"several of one name: the address", Passed{{"x", closed}, {"x", gram}, {"x", udp}}, Spec{"x", "udp", at(udp)}, udp, ""},
		{"wrong kind", Passed{{"http", udp}, {"x", tcp}}, Spec{"http", "tcp", at(tcp)}, -1,
			`LISTEN_FDS: descriptor ` + strconv.Itoa(udp) + `, "http": wrong kind of descriptor: it is a udp socket, and http=tcp://` + at(tcp) + ` asks for a tcp socket: change one of them`},
		{"stream and packets", Passed{{"s", seq}}, Spec{"s", "unix", "/s"}, -1, "it is a unixpacket socket, and s=unix:///s asks for a unix socket"},
		{"not listening", Passed{{"s", closed}}, Spec{"s", "tcp", ":1"}, -1, "it is a tcp socket that does not listen"},
		{"a file", Passed{{"s", file}}, Spec{"s", "udp", ":1"}, -1, "it is no socket of a kind that is known here, and s=udp://:1 asks for a udp socket"},
	} {
		p := slices.Clone(c.passed)
		got, _, err := p.Socket(c.spec)
		left := len(c.passed)
		if c.want >= 0 {
			left--
		}
		if got != c.want || len(p) != left || slices.ContainsFunc(p, func(d Descriptor) bool { return d.Fd == c.want }) {
			t.Errorf("%s: %d, %v; left %v", c.what, got, err, p)
		}
		if (c.err == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.err) || !errors.Is(err, ErrKind)) {
			t.Errorf("%s:\n got %v\nwant %s", c.what, err, c.err)
		}
	}
	p := Passed{{"a", file}, {"b", tcp}}
	if fd := p.File("c"); fd != -1 || len(p) != 2 {
		t.Error(fd, p)
	}
	if fd := p.File("b"); fd != tcp || len(p) != 1 {
		t.Error(fd, p)
	}
}

// Where all addresses are asked for, whichever way they are bound will do.
func TestEveryAddress(t *testing.T) {
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
		fd := bindOrSkip(t, Spec{"x", network, ":0"})
		_, port, _ := strings.Cut(Addr(fd).String(), "]:")
		if port == "" {
			_, port, _ = strings.Cut(Addr(fd).String(), "0:")
		}
		kind := Spec{Network: network}.Kind()
		for v, want := range map[string]bool{
			"": true, "4": network == kind+"4", "6": network != kind+"4",
		} {
			if got := (Spec{"x", kind + v, ":" + port}).boundTo(fd); got != want {
				t.Errorf("%v asked for as %s: %v", Addr(fd), kind+v, got)
			}
		}
		if (Spec{"x", kind, "127.0.0.1:" + port}).boundTo(fd) {
			t.Errorf("%v is not one address", Addr(fd))
		}
	}
}

func TestReject(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	path := filepath.Join(t.TempDir(), "s")
	fd, err := Spec{"x", "unix", path}.Bind()
	if err != nil {
		t.Fatal(err)
	}
	p := Passed{{"web.socket", fd}}
	p.Reject(log)
	p.Reject(log)
	want := `descriptors="web.socket (descriptor ` + strconv.Itoa(fd) + `, unix ` + path + `)"`
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) || !strings.Contains(got, "level=WARN") {
		t.Errorf(" got %s\nwant %s", got, want)
	}
	if _, err := net.Dial("unix", path); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("it is open: %v", err)
	}
}
