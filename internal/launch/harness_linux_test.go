package launch

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// envRole makes another program of this binary.
const envRole = "LAUNCH_TEST_ROLE"

// patience bounds every wait; nothing depends on it but how soon a test fails.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "title":
		titleMain()
	case "foster":
		fosterMain()
	case "sibling":
		siblingMain()
	case "tracer":
		tracerMain()
	}
	os.Exit(checked(m))
}

// checked runs the tests and makes sure that they leave nothing behind.
func checked(m *testing.M) int {
	if err := BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Whoever started the tests may have left descriptors open for them.
	_ = unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC)
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		fmt.Fprintf(os.Stderr, "processes are left: wait4: %d, %v, children %v\n", pid, err, Children())
		return 1
	}
	return 0
}

// checkFiles makes sure that the test leaves no descriptor open. Tests that use
// it are not parallel.
func checkFiles(t *testing.T) {
	t.Helper()
	// The runtime's poller opens its own at the first use.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	before := openFiles(t)
	t.Cleanup(func() {
		if after := openFiles(t); after != before {
			t.Errorf("%d open files, %d before", after, before)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// child is a process with pipes to its standard input and from its output.
type child struct {
	*Process
	t   *testing.T
	in  *os.File
	out *os.File
	sc  *bufio.Scanner
}

// begin starts a process. It ends with the test, at the latest.
func begin(t *testing.T, spec Spec) *child {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if spec.Env == nil {
		spec.Env = os.Environ()
	}
	// Programs expect these to block, which Fd makes them.
	spec.Fds = append([]int{int(inR.Fd()), int(outW.Fd()), 2}, spec.Fds...)
	p, err := Start(spec)
	inR.Close()
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{Process: p, t: t, in: inW, out: outR, sc: bufio.NewScanner(outR)}
	t.Cleanup(func() {
		c.in.Close()
		_ = c.Signal(syscall.SIGKILL)
		c.Wait()
		c.Close()
		c.out.Close()
	})
	return c
}

// shell is a script to start.
func shell(script string, args ...string) Spec {
	return Spec{Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "sh"}, args...)}
}

// cat lives until its input ends, or the test.
func cat(t *testing.T) *child { t.Helper(); return begin(t, Spec{Path: "/bin/cat"}) }

// role is this binary as another program.
func role(t *testing.T, name string, args ...string) Spec {
	t.Helper()
	return Spec{Path: Self, Args: append([]string{os.Args[0]}, args...),
		Env: append(os.Environ(), envRole+"="+name, "GORACE=atexit_sleep_ms=0")}
}

// line is the next line of its output, "" at the end.
func (c *child) line() string {
	c.t.Helper()
	_ = c.out.SetReadDeadline(time.Now().Add(patience))
	if c.sc.Scan() {
		return c.sc.Text()
	}
	if err := c.sc.Err(); err != nil {
		c.t.Fatal(err)
	}
	return ""
}

// number is the next line as a number, a pid.
func (c *child) number() int {
	c.t.Helper()
	line := c.line()
	n, err := strconv.Atoi(line)
	if err != nil {
		c.t.Fatalf("%q is not a number", line)
	}
	return n
}

func (c *child) tell(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func fdOf(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := Fd(f)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// until waits for what the kernel or another goroutine is about to do.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

// goroutines counts those whose stack contains all of the texts.
func goroutines(texts ...string) int {
	buf := make([]byte, 1<<20)
	n := 0
next:
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, text := range texts {
			if !strings.Contains(g, text) {
				continue next
			}
		}
		n++
	}
	return n
}

// waiting is what goroutines finds of one that waits for a process's end.
var waiting = []string{"[IO wait", "launch.(*Process).await"}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	_ = unix.Uname(&u)
	var a, b int
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return a > major || a == major && b >= minor
}

// fosterMain starts a script, says its pid, and reaps it when it is told to.
func fosterMain() {
	p, err := Start(shell(os.Args[1]))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.Pid)
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		fmt.Println(p.Wait())
	}
	os.Exit(0)
}

// tracerMain is a debugger that is slow.
func tracerMain() {
	runtime.LockOSThread()
	pid, _ := strconv.Atoi(os.Args[1])
	fmt.Println(unix.PtraceSeize(pid))
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
