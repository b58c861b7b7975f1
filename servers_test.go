package handover_test

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// server is the path of a server of Debian's package of that name.
func server(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian: apt-get install %s)", name, name)
	}
	return path
}

// TestGunicorn: a server in Python that finds its socket in LISTEN_FDS is upgraded under
// load. (Told of it a second time, by --bind fd://3, gunicorn 20 fails.)
func TestGunicorn(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir, err := filepath.Abs(filepath.Join("testdata", "workers"))
	if err != nil {
		t.Fatal(err)
	}
	s := startService(t, 2, "TEST_COMMAND="+server(t, "gunicorn")+" --workers 2 --pythonpath "+dir+" gunicorn_app:app",
		"PYTHONDONTWRITEBYTECODE=1", "TEST_READY=http:/")
	l := s.loadOf(10, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1})
	for i := range 5 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("web/1/1/%d", i+2))
	}
	check(t, l)
	s.stop()
}

// TestPuma: a server in Ruby that finds its socket in LISTEN_FDS is upgraded. Not under
// load: when it stops, it closes connections of which it has read nothing.
func TestPuma(t *testing.T) {
	t.Parallel() // most of it is waiting
	dir, err := filepath.Abs(filepath.Join("testdata", "workers"))
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	s := startService(t, 2, "TEST_COMMAND="+server(t, "puma")+" --quiet --bind tcp://"+addr+" "+filepath.Join(dir, "puma.ru"),
		"TEST_LISTEN=http=tcp://"+addr, "TEST_READY=http:/")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	for i := range 3 {
		if i > 0 {
			s.upgrade()
		}
		// Those of before that have not ended yet accept, too.
		until(t, 30*time.Second, func() string {
			resp, err := client.Get("http://" + addr + "/")
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if who := string(body); err != nil || !strings.HasPrefix(who, "puma web/") || !strings.Contains(who, fmt.Sprintf("/%d pid=", i+1)) {
				return fmt.Sprintf("%s answers, %v", who, err)
			}
			return ""
		})
	}
	s.stop()
	if n := s.count(has("worker exited", "cause=")); n > 0 {
		t.Errorf("%d workers failed", n)
	}
}
