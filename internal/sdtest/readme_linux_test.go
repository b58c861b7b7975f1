package sdtest_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/sdtest"
)

// TestReadme types what the README says of systemd. What is built on the host is put into
// the machine, and the address is one that nobody else has.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```sh\n(go build -o /usr/local/bin/handover .*?)```").FindStringSubmatch(string(readme))
	if block == nil {
		t.Fatal("the README says nothing of systemd")
	}
	lines := strings.Split(strings.TrimSpace(block[1]), "\n")
	if len(lines) != 9 {
		t.Errorf("the README has %d steps, not 9", len(lines))
	}
	sdtest.Each(t, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		says := map[string]string{
			"systemctl status": `Status: "generation 1: 2 of 2 workers serve"`, "handover status": "generation 2", "journalctl --unit": "generation=2",
		}
		if out, code := m.Exec("mkdir", "-p", "/etc/systemd/system", "/usr/local/bin"); code != 0 {
			t.Fatal(out)
		}
		t.Cleanup(func() {
			out, code := m.Exec("sh", "-c", "systemctl disable --now shop; rm -f /etc/systemd/system/shop.service /usr/local/bin/handover; systemctl daemon-reload")
			if code != 0 {
				t.Errorf("%s", out)
			}
		})
		for i, line := range lines {
			if i == 0 {
				if out, code := m.Exec("cp", s.dir+"/real", "/usr/local/bin/handover"); code != 0 {
					t.Fatal(out)
				}
				continue
			}
			line, _, _ = strings.Cut(line, "#")
			line = strings.ReplaceAll(strings.TrimSpace(line), "127.0.0.1:8080", s.addr)
			// Not all have started when systemctl start returns.
			s.until(func() string {
				out, code := m.Exec("sh", "-c", "PATH=/usr/local/bin:$PATH; "+line)
				words := strings.Fields(line)
				if want := says[strings.Join(words[:2], " ")]; !strings.Contains(out, want) {
					return line + " does not say " + want + ": " + out
				}
				if code != 0 {
					t.Fatalf("%s: exit code %d: %s", line, code, out)
				}
				return ""
			})
			if strings.HasPrefix(line, "systemctl reload") {
				resp, err := http.Get("http://" + s.addr + "/")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got := resp.Header.Get("X-Worker"); !strings.Contains(got, "generation=2") {
					t.Errorf("after the reload %q answers", got)
				}
			}
		}
		if got := s.show("Result"); got != "success" {
			t.Errorf("after the stop Result is %s", got)
		}
	})
}
