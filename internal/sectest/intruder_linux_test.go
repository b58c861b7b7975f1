package sectest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/control"
)

// intrude tries all that somebody can who has a user, with a service whose directory, parent
// and anchor the arguments name, and says what has worked.
func intrude(args []string) {
	dir := args[0]
	try := func(what string, fn func() error) {
		if err := fn(); err == nil {
			fmt.Println("can", what)
		}
	}
	client := control.NewClient(filepath.Join(dir, "control"))
	try("ask", func() error { _, _, err := client.Status(context.Background()); return err })
	for i, who := range []string{"parent", "anchor"} {
		pid, _ := strconv.Atoi(args[1+i])
		proc := "/proc/" + args[1+i]
		try("signal the "+who, func() error { return syscall.Kill(pid, 0) })
		try("read the environment of the "+who, func() error { _, err := os.ReadFile(proc + "/environ"); return err })
		try("see the descriptors of the "+who, func() error { _, err := os.ReadDir(proc + "/fd"); return err })
		try("write to the memory of the "+who, func() error {
			f, err := os.OpenFile(proc+"/mem", os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			return err
		})
		try("take a descriptor of the "+who, func() error {
			pidfd, err := unix.PidfdOpen(pid, 0)
			if err == nil {
				_, err = unix.PidfdGetfd(pidfd, 0, 0)
			}
			return err
		})
	}
	try("upgrade", func() error {
		_, err := client.Upgrade(context.Background(), control.WaitServe, func(control.Event) {})
		return err
	})
	try("write the PID file", func() error { return os.WriteFile(filepath.Join(dir, "pid"), []byte("1\n"), 0) })
	try("replace the PID file", func() error { return os.WriteFile(filepath.Join(dir, ".pid.next"), []byte("1\n"), 0) })
	try("replace the control socket", func() error { return os.Remove(filepath.Join(dir, "control")) })
	try("replace the program", func() error {
		f, err := os.OpenFile(filepath.Join(dir, serviceName), os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	})
	list, _ := os.ReadFile("/proc/net/unix")
	for _, f := range strings.Fields(string(list)) {
		if strings.HasPrefix(f, "@handover/"+args[2]+"/") {
			fmt.Println("can find the anchor's socket")
			for _, text := range []string{"MAINPID=" + strconv.Itoa(os.Getpid()), "READY=1\nSTOPPING=1", "X_HANDOVER_ANCHOR=1", "X_HANDOVER_KEEPS=1", "FDSTOREREMOVE=1\nFDNAME=http"} {
				c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: f, Net: "unixgram"})
				if err == nil {
					_, _ = c.Write([]byte(text))
					c.Close()
				}
			}
		}
	}
}

// can is what an intruder says that he can, as a user.
func (s *service) can(uid int) (list []string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "/proc/self/exe", s.dir, strconv.Itoa(s.status.Pid), strconv.Itoa(s.cmd.Process.Pid))
	cmd.Args[0], cmd.Dir = intruderName, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("%v: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestIntruder: who has the user of a group that has one of its own reaches neither parent nor
// anchor, and can't upgrade; he finds the anchor's notification socket, where nothing that he
// says counts.
func TestIntruder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	s := start(t)
	before := s.status
	if got := strings.Join(s.can(65534), "; "); got != "can find the anchor's socket" {
		t.Error(got)
	}
	if !s.serves() || s.status.Pid != before.Pid || s.status.Generation != 1 || s.status.Stopping {
		t.Errorf("%+v", s.status)
	}
}

// TestSameUser: who has the parent's user can do what the parent can.
func TestSameUser(t *testing.T) {
	s := start(t)
	got := strings.Join(s.can(os.Geteuid()), "; ")
	for _, want := range []string{"can ask", "can upgrade", "can signal the parent", "can read the environment of the parent", "can signal the anchor", "can write the PID file"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}
