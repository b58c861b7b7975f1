package launch

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// prepared runs a program by way of the trampoline and returns what it printed.
func prepared(t *testing.T, spec Spec, p Prepare) (string, *Process, Status) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	fd, err := Fd(out)
	if err != nil {
		t.Fatal(err)
	}
	spec.Fds, spec.Prepare = append([]int{0, fd, fd}, spec.Fds...), &p
	if spec.Env == nil {
		spec.Env = os.Environ()
	}
	proc, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	st := proc.Wait()
	proc.Close()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), proc, st
}

func TestPrepare(t *testing.T) {
	checkFiles(t)
	mask := uint32(0o27)
	out, proc, st := prepared(t, Spec{
		Path: "/bin/sh", Args: []string{"a shell", "-c", `echo "$0 $1 $$ $LISTEN_PID $WATCHDOG_PID [$HANDOVER_EXEC]"; umask; ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -t`, "a title", "arg"},
	}, Prepare{
		PidVars: []string{"LISTEN_PID", "WATCHDOG_PID"}, Umask: &mask,
		Limits: map[string]Limit{"nofile": {100, 200}, "core": {0, 0}, "cpu": {Unlimited, Unlimited}},
	})
	if !st.Success() {
		t.Fatal(st, out)
	}
	pid := strings.Fields(out)[3]
	want := "a title arg " + pid + " " + pid + " " + pid + " []\n0027\n100\n200\n0\nunlimited\n"
	if out != want || pid != strconv.Itoa(proc.Pid) {
		t.Errorf("pid %d printed %q, want %q", proc.Pid, out, want)
	}
}

// Without a limit of ours the program gets what this process was started with, not
// what the runtime has made of it.
func TestPrepareKeepsLimits(t *testing.T) {
	checkFiles(t)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	plain, _, _ := prepared(t, Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "ulimit -Sn"}}, Prepare{})
	direct := shell("ulimit -Sn >&1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := Fd(w)
	if err != nil {
		t.Fatal(err)
	}
	direct.Env, direct.Fds = os.Environ(), []int{0, fd, 2}
	p, err := Start(direct)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	buf := make([]byte, 64)
	n, _ := r.Read(buf)
	p.Wait()
	p.Close()
	if plain != string(buf[:n]) {
		t.Errorf("%q by way of the trampoline, %q without", plain, buf[:n])
	}
}

func TestPrepareFails(t *testing.T) {
	checkFiles(t)
	dir := t.TempDir()
	noInterpreter := filepath.Join(dir, "script")
	if err := os.WriteFile(noInterpreter, []byte("#!/no/such/thing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path    string
		prepare Prepare
		code    int
		says    string
	}{
		{noInterpreter, Prepare{}, 127, "its interpreter"},
		{junk, Prepare{}, 126, "neither a program"},
		{"/bin/true", Prepare{Limits: map[string]Limit{"pages": {1, 1}}}, 126, `limit "pages": unknown, use one of [as core`},
		{"/bin/true", Prepare{Limits: map[string]Limit{"nofile": {2, 1}}}, 126, "limit nofile=2:1: invalid argument"},
	} {
		out, _, st := prepared(t, Spec{Path: c.path}, c.prepare)
		if st.Code != c.code || !strings.Contains(out, "handover: ") || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v, %q", c.path, st, out)
		}
	}
	for path, want := range map[string]error{"/no/such/thing": syscall.ENOENT, "/etc/passwd": syscall.EACCES} {
		if _, err := Start(Spec{Path: path, Prepare: &Prepare{}}); err == nil || !strings.Contains(err.Error(), want.Error()) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
