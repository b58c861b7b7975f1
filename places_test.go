package handover_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover"
)

// TestDefaultsOfGroups: where, as whom and with which environment workers run, by what the
// Config says and by what their group does; a link in the working directory is followed
// anew by an upgrade.
func TestDefaultsOfGroups(t *testing.T) {
	dir, err := os.MkdirTemp("", "places") // that other users can enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	current, script := filepath.Join(dir, "current"), "#!/bin/sh\nexec sleep 1000\n"
	for _, release := range []string{"1", "2"} {
		sub := filepath.Join(dir, release, "sub")
		err = errors.Join(err, os.MkdirAll(sub, 0o755), os.WriteFile(filepath.Join(sub, "program"), []byte(script), 0o755))
	}
	err = errors.Join(err, os.Chmod(dir, 0o755), os.Symlink("1", current))
	if err != nil {
		t.Fatal(err)
	}
	uid, user := os.Geteuid(), ""
	if uid == 0 {
		uid, user = 65534, `"User":"65534:65534",`
	}
	s, _ := grouped(t, `[{"Name":"web","Workers":1},
		{"Name":"other","Dir":"sub","Workers":1,"Command":["./program"],"Env":["COLOUR=blue"]}]`,
		fmt.Sprintf(`TEST_DEFAULTS={%s"Dir":%q,"Env":["COLOUR=red","SHAPE=round"]}`, user, current))
	for i, release := range []string{"1", "2"} {
		for group, want := range map[string][]string{
			"web":   {release, "COLOUR=red"},
			"other": {release + "/sub", "COLOUR=blue"},
		} {
			proc := fmt.Sprintf("/proc/%d/", s.workerOf(group, i+1))
			cwd, err := os.Readlink(proc + "cwd")
			if err != nil || cwd != filepath.Join(dir, want[0]) {
				t.Errorf("release %s: a worker of %s is in %s, %v", release, group, cwd, err)
			}
			b, err := os.ReadFile(proc + "environ")
			env := strings.Split(string(b), "\x00")
			if err != nil || !slices.Contains(env, want[1]) || !slices.Contains(env, "SHAPE=round") {
				t.Errorf("release %s: a worker of %s has the environment %q, %v", release, group, env, err)
			}
			status, err := os.ReadFile(proc + "status")
			if got := match(string(status), `Uid:\s+(\d+)`); err != nil || got != fmt.Sprint(uid) {
				t.Errorf("release %s: a worker of %s is user %s, %v", release, group, got, err)
			}
		}
		if i == 0 {
			if err := errors.Join(os.Remove(current), os.Symlink("2", current)); err != nil {
				t.Fatal(err)
			}
			replacedIn(t, s, filepath.Join(dir, "1"))
			s.upgrade()
		}
	}
	s.stop()
}

// replacedIn kills the worker of web: its replacement, of the same generation, is where that
// one was.
func replacedIn(t *testing.T, s *service, dir string) {
	t.Helper()
	killed := s.workerOf("web", 1)
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, func() string {
		pid := s.findWorker("web", 1)
		if pid == 0 || pid == killed {
			return "there is no replacement"
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd != dir {
			t.Fatalf("a replacement is in %s, not in %s", cwd, dir)
		} else if err != nil {
			return err.Error()
		}
		return ""
	})
}

// workerOf is the pid of the one worker of a group of a generation.
func (s *service) workerOf(group string, generation int) int {
	s.t.Helper()
	pid := s.findWorker(group, generation)
	if pid == 0 {
		s.t.Fatalf("group %s has no worker of generation %d", group, generation)
	}
	return pid
}

// findWorker is workerOf, or 0 if there is none.
func (s *service) findWorker(group string, generation int) int {
	s.t.Helper()
	for _, pid := range s.workers() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if match(string(b), `HANDOVER_WORKER=(\S+?)/1/\d+/`+fmt.Sprint(generation)+`\x00`) == group {
			return pid
		}
	}
	return 0
}

// TestBadConfig: all faults are told at once, each with its field.
func TestBadConfig(t *testing.T) {
	cfg := handover.Config{
		Name: "a/b", LameDuck: -1, StopDelay: -1, UpgradeTimeout: -1, MaxConns: -1, TicketRotation: -1, Anchor: true, NoAnchor: true, Single: true,
		Command: []string{"x"}, Listen: []string{"8080"},
	}
	want := []string{"Name", "LameDuck", "StopDelay", "UpgradeTimeout", "MaxConns", "TicketRotation", "NoAnchor", "Single", "Listen"}
	if got := blamed(cfg.Validate()); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	alone := handover.Config{Single: true, User: "x"}
	if got := blamed(alone.Validate()); !slices.Equal(got, []string{"Single"}) {
		t.Errorf("a user for a single process: %v", got)
	}
	one := handover.Config{Workers: -1, Surge: -1, Burst: -1, RestartWindow: -1, Env: []string{"X"}, User: "no such"}
	want = []string{"web.User", "web.Count", "web.Surge", "web.Burst", "web.MaxRestarts", "web.Env"}
	if got := blamed(one.Validate()); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

// blamed are the fields that an error is about.
func blamed(err error) (fields []string) {
	if f, ok := err.(*handover.FieldError); ok {
		return []string{strings.TrimPrefix(f.Group+"."+f.Field, ".")}
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			fields = append(fields, blamed(e)...)
		}
	}
	return fields
}

// TestCheck: what is not there is said, with the field that names it, and nothing is made.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", "#!/bin/sh\n", 0o755)
	write("plain", "#!/bin/sh\n", 0o644)
	write("lost", "#!/no/such/shell\n", 0o755)
	good := handover.Config{
		Dir: dir, Listen: []string{"http=unix://s"}, PIDFile: "pid", Control: "control",
		Groups: []handover.Group{{Name: "web", Command: []string{"./good"}}, {Name: "own"}},
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 3 {
		t.Errorf("%v is there now, %v", list, err)
	}
	bad := handover.Config{
		Listen: []string{"http=unix:///no/s"}, PIDFile: "/no/pid", Control: dir + "/good/control",
		Groups: []handover.Group{
			{Name: "a", Command: []string{"no such program"}}, {Name: "b", Command: []string{"./plain"}, Dir: dir},
			{Name: "c", Command: []string{"./lost"}, Dir: dir}, {Name: "d", Dir: "/no/such"}, {Name: "e", Dir: dir + "/good"},
		},
	}
	want := []string{"PIDFile", "Control", "Listen", "a.Command", "b.Command", "c.Command", "d.Dir", "e.Dir"}
	if got := blamed(bad.Check()); !slices.Equal(got, want) {
		t.Errorf("%v, not %v: %v", got, want, bad.Check())
	}
	alone := handover.Config{Command: []string{"no such program"}}
	if got := blamed(alone.Check()); !slices.Equal(got, []string{"Command"}) {
		t.Errorf("%v", got)
	}
	invalid := handover.Config{Surge: -1, PIDFile: "/no/pid"}
	if got := blamed(invalid.Check()); !slices.Equal(got, []string{"web.Surge"}) {
		t.Errorf("%v", got)
	}
}
