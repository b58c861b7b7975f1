package sdtest_test

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/sdtest"
	units "github.com/handover-go/handover/internal/unit"
)

// generate makes units as an operator would, and puts them in place.
func (s *shop) generate(args ...string) map[string]string {
	s.t.Helper()
	out, code := s.m.Exec(s.dir+"/ctl", append([]string{"systemd-unit", "--name", "shop"}, args...)...)
	if code != 0 {
		s.t.Fatalf("handover systemd-unit: exit code %d: %s", code, out)
	}
	units := map[string]string{}
	for _, text := range strings.Split("\n"+out, "\n# /etc/systemd/system/")[1:] {
		name, text, _ := strings.Cut(text, "\n")
		units[name] = text
	}
	return units
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// sound fails the test if systemd finds fault with the units, or the service is exposed.
func (s *shop) sound(units map[string]string) {
	s.t.Helper()
	for name := range units {
		if out, code := s.m.Exec("systemd-analyze", "verify", "--man=no", "/run/systemd/system/"+name); code != 0 || strings.TrimSpace(out) != "" {
			s.t.Errorf("systemd-analyze verify %s: exit code %d: %s", name, code, out)
		}
	}
	out, _ := s.m.Exec("systemd-analyze", "security", "--no-pager", unit)
	m := exposure.FindStringSubmatch(out)
	if m == nil {
		s.t.Fatalf("systemd-analyze security: %s", out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 3 {
		s.t.Errorf("exposure %s, at most 3 is wanted:\n%s", m[1], out)
	}
	s.t.Logf("exposure %s", m[1])
}

// TestUnits: what 'handover systemd-unit' prints is sound, and a service that is run by
// it has all that it needs, in its sandbox, also to be upgraded.
func TestUnits(t *testing.T) {
	binary := []string{"--binary", "{dir}/handover", "--handover", "{dir}/ctl"}
	library := []string{"--", "run", "--name", "shop", "--workers", "2", "--upgrade-timeout", "1s", "--listen", "http=tcp://{addr}"}
	for _, c := range []struct {
		name string
		low  bool
		args []string
	}{
		{"library", false, append([]string{"--listen", "http=tcp://{addr}"}, library...)},
		{"low port", true, append([]string{"--listen", "http=tcp://{addr}"}, library...)},
		{"activated", true, append([]string{"--socket", "--listen", "http=tcp://{addr}", "--listen", "admin=unix:///run/shop-admin.sock"}, append(library, "--listen", "admin=unix:///nowhere")...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
				s := newShop(t, m)
				if c.low {
					s.addr = lowAddr(t)
				}
				files := s.generate(strings.Fields(s.text(strings.Join(append(binary, c.args...), " ")))...)
				s.start(files)
				s.sound(files)
				invocation := s.show("InvocationID")
				if uid := s.uid(s.show("MainPID")); uid == 0 {
					t.Error("the service is root")
				}
				l := s.load(25)
				for range 3 {
					s.good()
					s.reload()
					s.script("echo no database >&2; exit 1")
					s.fails("no database")
				}
				s.check(l)
				s.same(invocation)
				if out, code := m.Exec(s.dir+"/ctl", "status", "--name", "shop"); code != 0 || !strings.Contains(out, "2 of 2 serve") {
					t.Errorf("handover status: exit code %d: %s", code, out)
				}
				m.Must(t, "stop", unit)
				if got := s.show("Result"); got != "success" {
					t.Errorf("after the stop Result is %s", got)
				}
				if j := m.Journal(unit); strings.Contains(j, "reception only permitted") || strings.Contains(j, "not our child") {
					t.Errorf("systemd complains: %s", j)
				}
			})
		})
	}
}

// TestUnitProgram: the same for a program that knows nothing of handover.
func TestUnitProgram(t *testing.T) {
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		files := s.generate("--handover", s.dir+"/ctl", "--workers", "2", "--listen", "http=tcp://"+s.addr,
			"--", s.dir+"/handover", "run", "--single", "--listen", "http=tcp://"+s.addr)
		s.start(files)
		s.sound(files)
		invocation := s.show("InvocationID")
		for range 3 {
			s.reload()
			resp, err := http.Get("http://" + s.addr + "/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			s.script("echo no database >&2; exit 1")
			s.fails("no database")
			s.good()
		}
		s.same(invocation)
	})
}

// TestCommandLine: whatever stands on a command line, systemd hands it on as it is.
func TestCommandLine(t *testing.T) {
	words := []string{"", " ", "a b", `"`, "'", `\`, `\x41`, `\\`, "$HOME", "${HOME}", "$$", "%n", "%%", "%", ";", "&&", "|", "#", "-", "@", "!", "+", ":", "\t", "a\nb", "\x01", "\x7f", "ä", "*", "~", "=", "x=$y%z"}
	for i := range 200 {
		var b strings.Builder
		r := rand.New(rand.NewPCG(uint64(i), 1))
		for range r.IntN(8) {
			b.WriteByte(byte(1 + r.IntN(126)))
		}
		words = append(words, b.String())
	}
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		out := filepath.Join(m.TempDir(t), "words")
		command := append([]string{"/bin/sh", "-c", `printf '%s\0' "$@" > ` + out, "sh"}, words...)
		m.Install(t, map[string]string{"words.service": "[Service]\nType=oneshot\nExecStart=" + units.Command(command) + "\n"})
		m.Must(t, "start", "words.service")
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		if len(got) != len(words) {
			t.Fatalf("%d words, want %d", len(got), len(words))
		}
		for i := range words {
			if got[i] != words[i] {
				t.Errorf("%q has become %q", words[i], got[i])
			}
		}
	})
}
