package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// reaping runs ReapOrphans until the test's end.
func reaping(t *testing.T) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { defer close(stopped); ReapOrphans(stop) }()
	t.Cleanup(func() { close(stop); <-stopped })
}

// Orphans that die at any time do not cost a child of ours its status.
func TestReapOrphans(t *testing.T) {
	checkFiles(t)
	reaping(t)
	jobs := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for code := range jobs {
				// Two orphans, one of which ends before its parent and one about
				// the same time.
				spec := shell(`(exit 9) & (:; exit 8) & exit $1`, fmt.Sprint(code))
				spec.Env, spec.Fds = os.Environ(), []int{0, 1, 2}
				p, err := Start(spec)
				if err != nil {
					t.Error(err)
					continue
				}
				if st := p.Wait(); st != (Status{Known: true, Code: code}) {
					t.Errorf("%+v, not exit status %d", st, code)
				}
				p.Close()
			}
		})
	}
	for i := range 200 {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	until(t, "no orphan is left", func() bool { return len(Children()) == 0 })
}

func TestKillOrphans(t *testing.T) {
	checkFiles(t)
	reaping(t)
	const mark = "LAUNCH_TEST_MARK=one"
	// An orphan with a child and a grandchild, one that says what it is, and two
	// that only look like it.
	script := `
		sh -c 'echo $$; sh -c "echo \$\$; sleep 1000 & echo \$!; wait" & wait' &
		LAUNCH_TEST_MARK=one1 sleep 1000 & echo $!
		env -u LAUNCH_TEST_MARK XLAUNCH_TEST_MARK=one sh -c 'echo $$; exec sleep 1000' &
		read x`
	spec := shell(script)
	spec.Env = append(os.Environ(), mark)
	parent := begin(t, spec)
	var pids []int
	for range 5 {
		pids = append(pids, parent.number())
	}
	spec = Spec{Path: "/bin/cat", Env: append(os.Environ(), mark)}
	ours := begin(t, spec) // marked, but not an orphan

	if n := CountOrphans(mark); n != 0 {
		t.Errorf("%d orphans, and their parent lives", n)
	}
	parent.in.Close()
	parent.Wait()
	// More, as long as the last ones were not executed.
	until(t, "there are 3 orphans", func() bool { return CountOrphans(mark) == 3 })
	if n := KillOrphans(mark); n < 3 {
		t.Errorf("killed %d", n)
	}
	until(t, "they are gone", func() bool { return CountOrphans(mark) == 0 })
	if n := KillOrphans(mark); n != 0 {
		t.Errorf("killed %d more", n)
	}
	if err := ours.Signal(0); err != nil {
		t.Errorf("our own child: %v", err)
	}
	var left []int
	until(t, "only the two without the mark are left", func() bool {
		left = slices.DeleteFunc(Children(), func(pid int) bool { return pid == ours.Pid })
		return len(left) == 2
	})
	if !slices.Contains(pids, left[0]) || !slices.Contains(pids, left[1]) {
		t.Errorf("%v are left, not of %v", left, pids)
	}
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	ours.in.Close()
	ours.Wait()
	until(t, "nothing is left", func() bool { return len(Children()) == 0 })
}

// A process has no environment while it is being executed. It counts all the same.
func TestOrphanInExec(t *testing.T) {
	checkFiles(t)
	reaping(t)
	const mark = "LAUNCH_TEST_MARK=exec"
	again := filepath.Join(t.TempDir(), "again")
	if err := os.WriteFile(again, []byte("#!/bin/sh\nexec \"$0\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := shell(again + " & echo $!")
	spec.Env = append(os.Environ(), mark)
	parent := begin(t, spec)
	pid := parent.number()
	parent.Wait()
	for i := range 2000 {
		if n := CountOrphans(mark); n != 1 {
			t.Fatalf("%d orphans in look %d", n, i)
		}
	}
	if n := KillOrphans(mark); n != 1 {
		t.Errorf("killed %d", n)
	}
	until(t, "it is gone", func() bool { return !slices.Contains(Children(), pid) })
}

// titleMain prints what it sees of itself, and does so again by another title.
func titleMain() {
	line, _ := os.ReadFile("/proc/self/cmdline")
	comm, _ := os.ReadFile("/proc/self/comm")
	_, ok := os.LookupEnv(envArgv0)
	fmt.Printf("%q %q %q %t\n", os.Args, strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00"), comm, ok)
	if os.Getenv("LAUNCH_TEST_AGAIN") != "" {
		os.Unsetenv("LAUNCH_TEST_AGAIN")
		args, env := Titled("shop: anchor", os.Environ())
		fmt.Println(syscall.Exec(Self, args, Environ(env)))
		os.Exit(1)
	}
	os.Exit(0)
}

// What ps shows and what the program sees, over two changes of the title.
func TestTitled(t *testing.T) {
	checkFiles(t)
	args := os.Args
	os.Args = []string{"./a name", "-x", "y"}
	defer func() { os.Args = args }()
	spec := role(t, "title")
	spec.Args, spec.Env = Titled("shop: parent", append(spec.Env, "LAUNCH_TEST_AGAIN=1"))
	c := begin(t, spec)
	for _, title := range []string{"shop: parent", "shop: anchor"} {
		want := fmt.Sprintf("%q %q %q %t", os.Args, []string{title, "-x", "y"}, "a name\n", false)
		if got := c.line(); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	if st := c.Wait(); !st.Success() {
		t.Error(st)
	}
}
