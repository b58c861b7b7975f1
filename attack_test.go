//go:build linux

package handover_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
)

// talk connects to a control socket and says something, and leaves it at that.
func talk(t *testing.T, path, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, text)
	return c
}

// code is the status of the answer to that, 0 if there is none.
func code(c net.Conn) int {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// asOther asks as a user who has no right to, but may connect.
func asOther(t *testing.T, path string) string {
	t.Helper()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{askerName, path}, Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0"),
		SysProcAttr: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	return string(out)
}

// TestBadInput: whatever is thrown at the control socket is answered, and the set serves on.
func TestBadInput(t *testing.T) {
	s, path := controlled(t, 2)
	client := control.NewClient(path)
	l := s.load(40)
	const head = "POST /v1/restart HTTP/1.1\r\nHost: shop\r\n"
	for text, want := range map[string]int{
		"what?\r\n\r\n": 400,
		head + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n":                            431,
		head + "Content-Length: 1073741824\r\n\r\n" + strings.Repeat("x", 1<<20):          400,
		head + "Transfer-Encoding: chunked\r\n\r\nfffff\r\n" + strings.Repeat("x", 1<<10): 400,
		strings.Replace(head, "restart", "restart?worker=x", 1) + "\r\n":                  400,
		strings.Replace(head, "restart", "scale?count=-5", 1) + "\r\n":                    400,
		strings.Replace(head, "restart", "self-destruct", 1) + "\r\n":                     404,
	} {
		if got := code(talk(t, path, text)); got != want {
			t.Errorf("%.60q: %d, not %d", text, got, want)
		}
	}
	for range 50 { // they say no more, and read nothing
		talk(t, path, head)
	}
	for range 5 {
		talk(t, path, head+"\r\n")
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o666)); err != nil {
			t.Fatal(err)
		}
		refused := "refused: 403 Forbidden: user 65534 may not control this service, only user 0 and root may"
		if got := asOther(t, path); strings.Count(got, refused) != 2 {
			t.Error(got)
		}
	}
	var burst sync.WaitGroup
	for range 1000 {
		burst.Go(func() {
			if st, _, err := client.Status(limited(t)); err != nil || st.Service != "service" {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
	burst.Wait()
	ask1 := askFor(limited(t), client, control.Wish{Verb: control.Restart})
	ask1.is(t, control.Done)
	check(t, l)
	s.stop()
}

// TestAllAtOnce: two upgrades, a scale and a stop, in the same moment. Whatever comes
// first, everybody is answered, what is in flight is finished, and the service ends.
func TestAllAtOnce(t *testing.T) {
	for range 5 {
		s, path := controlled(t, 2)
		client := control.NewClient(path)
		h := holdFor(t, s.addr, 300*time.Millisecond)
		ctx := limited(t)
		gone := func(err error) bool {
			return errors.Is(err, control.ErrNoService) || errors.Is(err, control.ErrNoResult)
		}
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				ev, err := client.Upgrade(ctx, control.WaitServe, func(control.Event) {})
				if err != nil && !gone(err) || err == nil && ev.Result == "" {
					t.Errorf("upgrade: %+v, %v", ev, err)
				}
			})
		}
		scale := askFor(ctx, client, control.Wish{Verb: control.Scale, Count: 3})
		stop := askFor(ctx, client, control.Wish{Verb: control.Stop})
		all.Wait()
		if <-scale.done; scale.err != nil && !gone(scale.err) || scale.err == nil && scale.last.Result == "" {
			t.Errorf("scale: %+v, %v", scale.last, scale.err)
		}
		stop.is(t, control.Done)
		s.awaitExit(0)
		h.answeredBy(t, "generation=")
		if t.Failed() {
			return
		}
	}
}

// TestFullDisk: an upgrade that can't write its PID file fails and says why; a service
// that can't make its socket does not start. What serves goes on.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk that is full soon")
	}
	disk := t.TempDir()
	s := startServiceBy(t, func(bin string) *exec.Cmd {
		return exec.Command("unshare", "--mount", "sh", "-c",
			fmt.Sprintf(`mount -t tmpfs -o size=64k,nr_inodes=16 none %s && TEST_PIDFILE=%s/pid exec %s`, disk, disk, bin))
	}, 2, "TEST_CONTROL="+disk+"/s")
	inside := fmt.Sprintf("/proc/%d/root%s", s.pid, disk)
	client := control.NewClient(inside + "/s")
	l := s.load(20)
	for i := 0; ; i++ { // all of it, and all of its inodes
		err := os.WriteFile(fmt.Sprintf("%s/%d", inside, i), make([]byte, 4096), 0o600)
		if i > 50 {
			t.Fatal("the disk does not get full")
		}
		if errors.Is(err, syscall.ENOSPC) && i > 16 {
			break
		}
	}
	ev, err := client.Upgrade(limited(t), control.WaitServe, func(control.Event) {})
	if err != nil || ev.Result != control.Failed || !strings.Contains(ev.Reason, "no space left on device") {
		t.Errorf("%+v, %v", ev, err)
	}
	if code, out := startsNot(t, s.bin, nil, "TEST_CONTROL="+inside+"/t"); code != 1 || !strings.Contains(out, "control socket "+inside+"/t: ") || !strings.Contains(out, "no space left on device") {
		t.Errorf("%d: %s", code, out)
	}
	for _, w := range []control.Wish{{Verb: control.Restart}, {Verb: control.Scale, Count: 3}, {Verb: control.Drain, Worker: "web/3"}} {
		askFor(limited(t), client, w).is(t, control.Done)
	}
	check(t, l)
	s.signal(syscall.SIGTERM)
	s.awaitExit(0)
}

// startsNot starts a service that can't, and returns its exit code and what it prints.
func startsNot(t *testing.T, bin string, who *syscall.Credential, env ...string) (code int, out string) {
	t.Helper()
	cmd := exec.CommandContext(limited(t), bin)
	cmd.Env = append(os.Environ(), append(env, "TEST_WORKERS=1", "GORACE=atexit_sleep_ms=0")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	b, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	if !errors.As(err, &exited) {
		t.Errorf("it has not failed: %v", err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// TestUnwritable: where a user may not write there is no service of his, and he is told
// where that is.
func TestUnwritable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, serviceName)
	install(t, bin)
	mine := filepath.Join(dir, "mine")
	// All may come here, and write nothing.
	if err := errors.Join(os.Mkdir(mine, 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for env, want := range map[string]string{
		"XDG_RUNTIME_DIR=" + mine:   "directory of the control socket: mkdir " + mine + "/handover: permission denied",
		"RUNTIME_DIRECTORY=" + mine: "control socket " + mine + "/service.sock: ",
	} {
		code, out := startsNot(t, bin, nobody, "TEST_CONTROL=auto", env)
		if code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "permission denied") {
			t.Errorf("%s: %d: %s", env, code, out)
		}
	}
}

// TestControlGroup: a group may read what the service says, until a new version says that
// it may not, and nobody else may anything.
func TestControlGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a socket to a group")
	}
	group := filepath.Join(t.TempDir(), "group")
	if err := os.WriteFile(group, []byte("65534"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, path := controlled(t, 1, "TEST_CONTROL_GROUP="+group)
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	check := func(mode os.FileMode, want string) {
		t.Helper()
		if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeSocket|mode {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		if got := asOther(t, path); !strings.Contains(got, want) {
			t.Errorf(" got %s\nwant %s", got, want)
		}
	}
	reads := "<nil>\n " + path + ": refused: 403 Forbidden: user 65534 may only read here, not act: only user 0 and root may\n"
	check(0o660, reads)
	s.upgrade()
	check(0o660, reads)
	if err := os.Remove(group); err != nil {
		t.Fatal(err)
	}
	s.upgrade()
	check(0o600, "permission denied")
	s.stop()
}
