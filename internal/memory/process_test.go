//go:build linux

package memory

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestMain is also a process that has as much memory as it is told.
func TestMain(m *testing.M) {
	if mb, err := strconv.Atoi(os.Getenv("TEST_HAVE_MB")); err == nil {
		have(mb)
		return
	}
	os.Exit(m.Run())
}

func have(mb int) {
	b := make([]byte, mb<<20)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	fmt.Println("there")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until whoever has started it goes
	fmt.Println(b[0])
}

// begin starts a command and waits until it says that it is there.
func begin(t *testing.T, mb int, name string, args ...string) (pid int) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TEST_HAVE_MB="+strconv.Itoa(mb), "GORACE=atexit_sleep_ms=0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "there\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid
}

func TestOf(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	alone := begin(t, 64, self)
	wrapped := begin(t, 64, "sh", "-c", `sh -c '"$0"; true' "$0"; true`, self)
	for _, kind := range []Kind{RSS, PSS} {
		for what, pid := range map[string]int{"alone": alone, "wrapped": wrapped} {
			n, err := Of(pid, kind)
			if err != nil || n < 64<<20 || n > 256<<20 { // the race detector has as much again
				t.Errorf("%v, %s: %s, %v", kind, what, FormatSize(n), err)
			}
		}
		if n, err := of(wrapped, kind); err != nil || n <= 0 || n > 32<<20 {
			t.Errorf("%v of the wrapper: %s, %v", kind, FormatSize(n), err)
		}
		if n, err := Of(1<<30, kind); !os.IsNotExist(err) || n != 0 {
			t.Errorf("%v of nobody: %d, %v", kind, n, err)
		}
	}
	rss, _ := Of(alone, RSS)
	if pss, _ := Of(alone, PSS); pss >= rss {
		t.Errorf("PSS %s, RSS %s, although its program is ours, too", FormatSize(pss), FormatSize(rss))
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	page := int64(os.Getpagesize())
	for s, want := range map[string]int64{"5000 300 20 1 0 7 0\n": 300 * page, "1 0": 0, "5000": -1, "": -1, "1 x": -1} {
		if n, err := rss([]byte(s)); n != max(want, 0) || (err != nil) != (want < 0) {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	smaps := "00400000-7fff r-xp 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:     1234 kB\nPss_Dirty: 7 kB\n"
	for s, want := range map[string]int64{smaps: 1234 << 10, strings.ReplaceAll(smaps, "Pss:", "pss:"): -1, "Pss: x kB": -1, "": -1} {
		if n, err := pss([]byte(s)); n != max(want, 0) || (err != nil) != (want < 0) {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
}

// BenchmarkOf is what one look at a process takes.
func BenchmarkOf(b *testing.B) {
	for _, mb := range []int{0, 512} {
		held := make([]byte, mb<<20)
		for i := 0; i < len(held); i += os.Getpagesize() {
			held[i] = 1
		}
		for _, kind := range []Kind{RSS, PSS} {
			b.Run(fmt.Sprintf("%v of %d MiB", kind, mb), func(b *testing.B) {
				for b.Loop() {
					if _, err := Of(os.Getpid(), kind); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		runtime.KeepAlive(held)
	}
}
