//go:build linux

package launch

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzInfo: a descriptor is taken for one that follows a process only if the kernel says so of it.
func FuzzInfo(f *testing.F) {
	own, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		f.Fatal(err)
	}
	defer unix.Close(own)
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", own))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(os.Getpid(), b)
	f.Add(7, []byte("pos:\t0\nPid:\t-1\nNSpid:\t-1\n"))
	f.Add(7, []byte("Pid:\t8\nPid:\t7\n"))
	f.Add(1, []byte("pos:\t0\nflags:\t02\n"))
	f.Fuzz(func(t *testing.T, pid int, b []byte) {
		is := regexp.MustCompile(fmt.Sprintf(`(?m)^Pid:\s*(\+?0*%d|-0*1)\s*$`, pid)).Match(b)
		if err := checkInfo(pid, b); err == nil && !is {
			t.Errorf("%q is said to be of %d", b, pid)
		}
	})
}
