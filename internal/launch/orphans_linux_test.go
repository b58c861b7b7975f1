package launch

import (
	"fmt"
	"os"
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
