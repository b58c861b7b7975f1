package handover_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
)

// statusListen is what stands in the file TEST_STATUS.
func statusListen() string {
	b, _ := os.ReadFile(os.Getenv("TEST_STATUS"))
	return string(b)
}

// statusFile has a service's next generation listen there.
func statusFile(t *testing.T, addr string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "status")
	setStatus(t, file, addr)
	return file
}

func setStatus(t *testing.T, file, addr string) {
	t.Helper()
	if addr != "" {
		addr = "tcp://" + addr
	}
	if err := os.WriteFile(file, []byte(addr), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestStatusListen: who comes over the network may ask, and nothing else.
func TestStatusListen(t *testing.T) {
	addr := freeAddr(t)
	s := startService(t, 1, "TEST_STATUS="+statusFile(t, addr))
	for _, generation := range []string{`"generation": 1,`, `"generation": 2,`} {
		for path, want := range map[string]string{"/v1/status": generation, "/v1/ready": "", "/metrics": "\nhandover_generation "} {
			resp, body, err := askAt(addr).ask("GET", path, "")
			if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s: %v, %v\n%s", path, err, resp, body)
			}
			for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
				if resp, body, err := askAt(addr).ask(method, path, ""); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
					t.Errorf("%s %s: %v, %v\n%s", method, path, err, resp, body)
				}
			}
		}
		for _, path := range []string{"/v1/upgrade", "/v1/rollback", "/v1/restart", "/v1/scale", "/v1/drain", "/v1/kill", "/v1/stop", "/v1/reopen", "/"} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
				if resp, body, err := askAt(addr).ask(method, path, ""); err != nil || resp.StatusCode != http.StatusNotFound {
					t.Errorf("%s %s: %v, %v\n%s", method, path, err, resp, body)
				}
			}
		}
		if strings.Contains(generation, "1") {
			if n := s.count(has(`msg="upgrade begins"`)); n != 0 {
				t.Errorf("%d upgrades", n)
			}
			s.upgrade()
		}
	}
	// A request that is too long is no reason to read all of it.
	req, err := http.NewRequest("GET", "http://handover/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	resp, err := askAt(addr).http.Do(req)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", err, resp)
	} else {
		resp.Body.Close()
	}
	s.stop()
}

// TestStatusListenChanges: an upgrade may bring another address, and none.
func TestStatusListenChanges(t *testing.T) {
	first, second := freeAddr(t), freeAddr(t)
	file := statusFile(t, first)
	s, path := controlled(t, 1, noProbation, "TEST_STATUS="+file)
	answers := func(addr string) bool {
		t.Helper()
		resp, _, err := askAt(addr).ask("GET", "/v1/ready", "")
		return err == nil && resp.StatusCode == http.StatusOK
	}
	gone := func(addr string) {
		t.Helper()
		until(t, 10*time.Second, func() string { // the end of the old parent's process closes it
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return ""
			}
			c.Close()
			return addr + " is open"
		})
	}
	// One that is somebody's changes nothing.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	setStatus(t, file, taken.Addr().String())
	ev := result(t, asking(t, path))
	if want := "status address tcp://" + taken.Addr().String() + ": address already in use: it is another process's. Give one of them another address"; ev.Result != control.Failed || !strings.Contains(ev.Reason+ev.Output, want) {
		t.Errorf("%+v, not %s", ev, want)
	}
	if !answers(first) {
		t.Error("the first address does not answer")
	}
	setStatus(t, file, second)
	s.upgrade()
	if !answers(second) {
		t.Error("the second address does not answer")
	}
	gone(first)
	setStatus(t, file, "")
	s.upgrade()
	gone(second)
	s.stop()
}

// TestStatusListenSilent: clients that say nothing hold up neither an upgrade nor those who
// ask on the control socket, and take no more than their number of descriptors.
func TestStatusListenSilent(t *testing.T) {
	addr := freeAddr(t)
	s, path := controlled(t, 1, "TEST_STATUS="+statusFile(t, addr))
	before := parentFDs(t, s)
	const few = 8 // come and go
	for range 100 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if resp, body, err := askAt(path).ask("GET", "/v1/ready", ""); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v, %v\n%s", err, resp, body)
	}
	until(t, 10*time.Second, func() string {
		if n := parentFDs(t, s); n < before+64-few {
			return fmt.Sprintf("the parent had %d descriptors, and has %d", before, n)
		}
		return ""
	})
	if n := parentFDs(t, s); n > before+64+few {
		t.Errorf("the parent had %d descriptors, and has %d", before, n)
	}
	s.upgrade()
	s.stop()
}
