package handover_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// anchorLimit is what the anchor may have of its own, in kB: its share of what it has
// in common with the parent and the workers included (PSS). What the command links costs it
// some, by initialization.
const anchorLimit = 3400

// buildCommand builds the command as people do: the race detector needs memory.
func buildCommand(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "handover")
	if out, err := exec.Command("go", "build", "-race=false", "-o", bin, "./cmd/handover").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// rollup is a value of /proc/pid/smaps_rollup in kB.
func rollup(t *testing.T, pid int, name string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	kb, err := strconv.Atoi(match(string(b), `(?m)^`+name+`:\s+(\d+) kB$`))
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, b)
	}
	return kb
}

// TestAnchorMemory: the anchor is small, at the start and when a lot has happened, and
// its signals' handling does not cost more the more there were.
func TestAnchorMemory(t *testing.T) {
	bin := buildCommand(t)
	for name, args := range map[string][]string{
		"app": {"--workers", "2"}, "program": {"--workers", "1", "--ready", "10ms", "--", "sleep", "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listen := "http=unix://" + filepath.Join(shortDir(t), "s")
			cmd := exec.Command(bin, append([]string{"run", "--control", "none", "--listen", listen}, args...)...)
			s := startCommand(t, cmd)
			s.pid = cmd.Process.Pid
			s.await(has(`msg="generation serves"`))
			small := func(when string) {
				t.Helper()
				until(t, 30*time.Second, func() string {
					// While many others map the file its share is small, so that it has to have
					// given back the file's pages, too.
					pss, rss := rollup(t, s.pid, "Pss"), rollup(t, s.pid, "Rss")
					if pss > anchorLimit || rss > anchorLimit*3/2 {
						return fmt.Sprintf("%s: PSS %d kB, more than %d, or RSS %d kB", when, pss, anchorLimit, rss)
					}
					return ""
				})
				t.Logf("%s: PSS %d kB, RSS %d kB", when, rollup(t, s.pid, "Pss"), rollup(t, s.pid, "Rss"))
			}
			small("start")
			for range 3 {
				s.upgrade()
			}
			for range 1000 {
				s.signal(syscall.SIGUSR1)
				s.signal(syscall.SIGWINCH)
			}
			small("end")
			if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", readChild(t, s.pid))); err != nil ||
				regexp.MustCompile(`(^|\x00)(GOMAXPROCS=1|GODEBUG=[^\x00]*disablethp|HANDOVER_ANCHOR_ENV)`).Match(env) && os.Getenv("GOMAXPROCS") == "" {
				t.Errorf("the parent has the anchor's environment (%v): %q", err, strings.Split(string(env), "\x00"))
			}
			s.stop()
		})
	}
}

// readChild is the pid of a child of the process.
func readChild(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(match(string(b), `(\d+)`))
	if err != nil {
		t.Fatalf("children: %q", b)
	}
	return child
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "anchor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
