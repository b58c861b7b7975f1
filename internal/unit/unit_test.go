package unit

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/listen"
)

var update = flag.Bool("update", false, "write the golden files anew")

func specs(t *testing.T, list ...string) []listen.Spec {
	t.Helper()
	all, err := listen.ParseAll(list)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestUnitFiles compares whole units with those in testdata, which a person has read.
func TestUnitFiles(t *testing.T) {
	start := []string{"/usr/bin/handover", "run", "--name", "shop"}
	reload := []string{"/usr/bin/handover", "upgrade", "--wait", "serve", "--name", "shop"}
	sweep := []string{"/usr/bin/handover", "sweep"}
	for name, s := range map[string]Service{
		"plain": {
			Listen: specs(t, "http=tcp://127.0.0.1:8080"), StartTime: time.Minute, StopTime: 35 * time.Second, Watchdog: 30 * time.Second,
		},
		"own": {
			User: "www-data", Dir: "/home/shop", Listen: specs(t, "http=tcp://192.0.2.1:80", "admin=unix:///srv/admin.sock"),
			Writes: []string{"/srv"}, StartTime: 1500 * time.Millisecond, StopTime: time.Hour,
		},
		"sockets": {
			Sockets: true, StartTime: time.Minute, StopTime: time.Minute, Watchdog: time.Second,
			Listen: specs(t, "http=tcp://:80", "four=tcp4://:81", "six=tcp6://:82", "dns=udp://[::1]:53", "admin=unix:///run/admin.sock", "log=unixgram:///run/log.sock", "ctl=unixpacket:///run/ctl.sock"),
		},
	} {
		s.Name, s.Start, s.Reload, s.Sweep = "shop", start, reload, sweep
		var b strings.Builder
		for _, f := range s.Files() {
			b.WriteString("# " + f.Name + "\n" + f.Text + "\n")
		}
		path := "testdata/" + name + ".txt"
		if *update {
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s is now\n%s", path, b.String())
		}
	}
}

func TestLowPort(t *testing.T) {
	for l, want := range map[string]bool{
		"tcp://:80": true, "udp://[::1]:1023": true, "tcp://:1024": false, "tcp://:0": false, "unix:///80": false,
	} {
		if got := (Service{Listen: specs(t, l)}).lowPort(); got != want {
			t.Errorf("%s: %v", l, got)
		}
		if (Service{Listen: specs(t, l), Sockets: true}).lowPort() {
			t.Errorf("%s, bound by systemd: it needs a capability", l)
		}
	}
}

func TestHome(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/bin/x": "yes", "/home/x": "read-only", "/home": "read-only", "/homework/x": "yes", "/root/bin/../x": "read-only",
	} {
		s := Service{Name: "shop", Reads: []string{"/bin/true", path}}
		if !slices.Contains(strings.Split(s.service(), "\n"), "ProtectHome="+want) {
			t.Errorf("%s: not %s", path, want)
		}
	}
}

func TestCommand(t *testing.T) {
	for want, words := range map[string][]string{
		`/bin/a -b --c=d`:               {"/bin/a", "-b", "--c=d"},
		`/bin/a "" "b c"`:               {"/bin/a", "", "b c"},
		`/bin/a "\"q\" \\ 'x'"`:         {"/bin/a", `"q" \ 'x'`},
		`/bin/a "$$HOME" %%n ";" "a;b"`: {"/bin/a", "$HOME", "%n", ";", "a;b"},
		`"/my $bin/a" "\x09\x0a"`:       {"/my $bin/a", "\t\n"},
		`/bin/ä ü`:                      {"/bin/ä", "ü"},
	} {
		if got := Command(words); got != want {
			t.Errorf("%q: %s, want %s", words, got, want)
		}
	}
}
