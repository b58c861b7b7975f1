package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// siblingMain starts a sibling, tells its pid, and how it ended.
func siblingMain() {
	p, err := Start(Spec{Path: os.Args[1], Args: []string{"sibling"}, Env: os.Environ(), Fds: []int{0, 1, 2}, Sibling: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("sibling", p.Pid)
	fmt.Println(p.Wait())
	os.Exit(0)
}

// TestSibling: a sibling is the child of this process, and whoever started it follows it
// all the same.
func TestSibling(t *testing.T) {
	checkFiles(t)
	c := begin(t, role(t, "sibling", "/bin/cat"))
	var pid int
	if line := c.line(); !strings.HasPrefix(line, "sibling ") {
		t.Fatalf("%q", line)
	} else if _, err := fmt.Sscanf(line, "sibling %d", &pid); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil || !strings.Contains(string(stat), fmt.Sprintf("(cat) %c %d ", stat[strings.LastIndexByte(string(stat), ')')+2], os.Getpid())) {
		t.Errorf("its parent is another process than %d: %s, %v", os.Getpid(), stat, err)
	}
	c.in.Close() // which ends cat
	var ws syscall.WaitStatus
	if _, err := unix.Wait4(pid, (*unix.WaitStatus)(&ws), 0, nil); err != nil || ws.ExitStatus() != 0 {
		t.Errorf("status %v, %v", ws, err)
	}
	if got := c.line(); got != "exit status 0" && got != "exit status unknown" { // before Linux 6.15
		t.Errorf("%q", got)
	}
	if got := c.Wait(); !got.Success() {
		t.Error(got)
	}

	// What can't be executed is an error as ever, and reaped by the one whose child it was.
	c = begin(t, role(t, "sibling", "/no/such/program"))
	if got := c.line(); !strings.Contains(got, "no such file") {
		t.Errorf("%q", got)
	}
	c.Wait()
	for _, pid := range Children() {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestSiblingOfFirst: PID 1 has no siblings, and gets a child instead.
func TestSiblingOfFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make a PID namespace")
	}
	spec := role(t, "sibling", "/bin/cat")
	spec.Args = append([]string{"unshare", "--pid", "--fork", "--kill-child", "/proc/self/exe"}, spec.Args[1:]...)
	spec.Args[4] = os.Args[0]
	spec.Path = "/usr/bin/unshare"
	c := begin(t, spec)
	switch got := c.line(); {
	case got == "":
		t.Skip("no PID namespace can be made here")
	case !strings.HasPrefix(got, "sibling "):
		t.Errorf("%q", got)
	}
	c.in.Close()
	if got := c.line(); got != "exit status 0" {
		t.Errorf("%q", got)
	}
	c.Wait()
}
