package anchor

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
)

// activate starts an anchor as a supervisor does, with its pid in LISTEN_PID unless
// env says otherwise.
func activate(t *testing.T, w *world, fds []int, env ...string) {
	t.Helper()
	w.launch(func(stderr int) (*launch.Process, error) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		fd, err := launch.Fd(null)
		if err != nil {
			return nil, err
		}
		return launch.Start(launch.Spec{
			Path: "/bin/sh", Args: []string{"sh", "-c", `export LISTEN_PID=${PID-$$}; exec "$0"`, testBinary(t)},
			Env: w.env("anchor", env...), Fds: append([]int{fd, stderr, stderr}, fds...), Setpgid: true,
		})
	})
}

// passedSockets are blocking, as systemd makes them.
func passedSockets(t *testing.T) (fds []int) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		fd, err := listen.Spec{Name: "x", Network: network, Addr: "127.0.0.1:0"}.Bind()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

func link(t *testing.T, pid string, fd int) string {
	t.Helper()
	to, err := os.Readlink("/proc/" + pid + "/fd/" + strconv.Itoa(fd))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// What a supervisor has passed reaches the parent, and the anchor keeps none of it.
func TestPassed(t *testing.T) {
	t.Parallel()
	for names, want := range map[string]string{"web:dns": "[{web 3} {dns 4}]", "": "[{unknown 3} {unknown 4}]"} {
		w, fds := newWorld(t), passedSockets(t)
		activate(t, w, fds, "LISTEN_FDS=2", "LISTEN_FDNAMES="+names)
		a := w.accept()
		for i, fd := range fds {
			if got, want := a.ask("link %d", 3+i), link(t, "self", fd); got != want {
				t.Errorf("descriptor %d is %s, not %s", 3+i, got, want)
			}
		}
		if got := a.ask("receive"); got != "received "+want+" <nil>" {
			t.Errorf("%s, not %s", got, want)
		}
		own, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.anchor.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range own {
			to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", w.anchor.Pid, e.Name()))
			for _, fd := range fds {
				if to == link(t, "self", fd) {
					t.Errorf("the anchor has %s", to)
				}
			}
		}
		for _, fd := range fds {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("flags %#x, %v", flags, err)
			}
		}
		a.tell("exit 0")
		w.exit(0)
	}
}

// What is another's is not passed on, and what is wrong is said.
func TestNotPassed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	activate(t, w, nil, "PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=web")
	a := w.accept()
	if got := a.ask("receive"); got != "received [] <nil>" {
		t.Error(got)
	}
	a.tell("exit 0")
	w.exit(0)

	w = newWorld(t)
	activate(t, w, passedSockets(t), "LISTEN_FDS=many")
	w.logged(`run: LISTEN_FDS="many": not a count`)
	w.exit(1)
}

// Without an anchor LISTEN_PID has to be there.
func TestReceive(t *testing.T) {
	for _, c := range []struct{ anchor, pid, want string }{
		{"", "", ""}, {"", "1", "1"}, {"7", "1", "1"}, {"7", "", strconv.Itoa(os.Getpid())},
	} {
		t.Setenv(EnvPid, c.anchor)
		t.Setenv(listen.EnvPid, c.pid)
		Receive()
		if got := os.Getenv(listen.EnvPid); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	listen.Forget()
}
