package handover_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// program is a command line of a worker of testdata/workers.
func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("testdata", "workers"))
	if err != nil {
		t.Fatal(err)
	}
	look := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		return path
	}
	switch name {
	case "python":
		return python(t) + " " + filepath.Join(dir, "server.py")
	case "node":
		return look("node") + " " + filepath.Join(dir, "server.js")
	case "wrapped python", "wrapped node":
		return filepath.Join(dir, "wrapper.sh") + " " + program(t, strings.TrimPrefix(name, "wrapped "))
	case "static":
		return static(t)
	}
	t.Fatalf("no program %q", name)
	return ""
}

// python is an interpreter, rather the system's own than one that a shim looks up.
func python(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("python3 is not installed (Debian: apt-get install python3)")
	return ""
}

// static builds the program in plain Go.
func static(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "static")
	cmd := exec.Command("go", "build", "-race=false", "-o", bin, "./testdata/workers/static")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// TestProgramsUnderLoad: programs that know nothing of this module, in four
// languages, are upgraded 20 times, and nothing is lost that they finish.
func TestProgramsUnderLoad(t *testing.T) {
	for name, ready := range map[string]string{
		"python": "notify", "node": "channel", "wrapped python": "", "wrapped node": "200ms", "static": "http:/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			s := startService(t, 2, "TEST_COMMAND="+program(t, name), "TEST_READY="+ready)
			l := s.loadOf(20, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1})
			for i := range 20 {
				s.upgrade()
				answered(t, l, fmt.Sprintf("web/1/1/%d", i+2))
			}
			check(t, l)
			want := 2
			if strings.HasPrefix(name, "wrapped") {
				want = 4
			}
			until(t, 10*time.Second, func() string { // the last ones that were replaced may be about to end
				if n := len(s.workers()); n != want {
					return fmt.Sprintf("%d processes of workers, not %d", n, want)
				}
				return ""
			})
			s.stop()
		})
	}
}

// TestBlockingProgram: a program that knows nothing of O_NONBLOCK gets its socket as
// systemd would pass it, in every generation.
func TestBlockingProgram(t *testing.T) {
	dir, err := filepath.Abs(filepath.Join("testdata", "workers"))
	if err != nil {
		t.Fatal(err)
	}
	s := startService(t, 2, "TEST_COMMAND="+python(t)+" "+filepath.Join(dir, "blocking.py"), "TEST_READY=100ms", "TEST_CONTROL="+filepath.Join(t.TempDir(), "control"))
	for i := range 3 {
		for range 10 {
			resp, err := http.Get("http://" + s.addr + "/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		if i < 2 {
			from := s.mark()
			s.upgrade()
			// This program may lose what it accepts at the moment of its TERM.
			for slot := range 2 {
				if _, err := s.waitFrom(from, has(`msg="worker exited"`, fmt.Sprintf("worker=web/%d ", slot+1), fmt.Sprintf("worker_generation=%d ", i+1))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	s.stop()
	if log := s.tail(1000); strings.Contains(log, "Traceback") || strings.Contains(log, "cause=") {
		t.Error(log)
	}
}

// TestLeftBehind: what a program has left behind is ended soon after the service has
// stopped in order, and the exit code stays.
func TestLeftBehind(t *testing.T) {
	script := filepath.Join(t.TempDir(), "leaves")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsetsid sleep 300 &\necho left $!\nexec sleep 300\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := startService(t, 1, "TEST_COMMAND="+script, "TEST_READY=10ms")
	s.await(has("left "))
	s.stop() // with 0, in less time than a crash's remains would get
	if log := s.tail(100); !strings.Contains(log, "has left processes behind") {
		t.Error(log)
	}
}
