package handover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/worker"
)

// A release of the service is the test binary with a name behind its end, which the
// kernel does not look at.
const releaseMark = "\nRELEASE:"

// releaseOf is the name of the release that a process executes.
func releaseOf(pid int) string {
	exe := "/proc/self/exe"
	if pid != 0 {
		exe = fmt.Sprintf("/proc/%d/exe", pid)
	}
	f, err := os.Open(exe)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	end := make([]byte, 64)
	if _, err := f.ReadAt(end, st.Size()-int64(len(end))); err != nil {
		return err.Error()
	}
	_, name, _ := bytes.Cut(end, []byte(releaseMark))
	return string(name)
}

func init() {
	releases = releaseApp
	lessSockets = func() bool { return strings.Contains(releaseOf(0), "one socket less") }
}

// releaseApp is what is wrong with a release.
func releaseApp() worker.App {
	switch releaseOf(0) {
	case "fails later", "fails later, one socket less":
		return func(ctx context.Context, w *worker.Worker) error {
			// With more to say than fits into an environment variable.
			why := errors.New("the cache is full of " + strings.Repeat("<", 40<<10))
			time.AfterFunc(300*time.Millisecond, func() { w.Fail(why) })
			return demo.App(ctx, w)
		}
	case "waits":
		return func(ctx context.Context, w *worker.Worker) error {
			f, err := os.Open(os.Getenv("TEST_FIFO")) // until somebody writes
			if err != nil {
				return err
			}
			f.Close()
			return demo.App(ctx, w)
		}
	case "sick", "sick, one socket less":
		return func(ctx context.Context, w *worker.Worker) error {
			return w.Serve(ctx, "http", &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
				rw.Header().Set("X-Worker", fmt.Sprintf("%s generation=%d pid=%d", w.Name(), w.Generation(), os.Getpid()))
				if r.URL.Path == "/healthz" {
					rw.WriteHeader(http.StatusInternalServerError)
				}
			})})
		}
	}
	return nil
}

// addrOf is where a socket is bound.
func (s *service) addrOf(name string) string {
	s.t.Helper()
	return match(s.await(has("msg=started")), name+`=tcp://([^\s,"]+)`)
}

// deploy puts a release in place of the service's file.
func (s *service) deploy(release string) {
	s.t.Helper()
	s.replace(func(tmp string) error {
		b, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		return os.WriteFile(tmp, append(b, releaseMark+release...), 0o755)
	})
}

// settle waits until the anchor is one of the parent's program, which it becomes when that
// has proven itself: a signal that reaches it in the moment of the exec may be lost.
func (s *service) settle() {
	s.t.Helper()
	s.await(has("is one of the parent's program", fmt.Sprintf(" pid=%d parent=%d", s.pid, s.parent())))
}

// runs checks which release all of the service's workers execute.
func (s *service) runs(release string) {
	s.t.Helper()
	until(s.t, 10*time.Second, func() string {
		pids := s.workers()
		if len(pids) != 2 {
			return fmt.Sprintf("%d workers", len(pids))
		}
		for _, pid := range pids {
			if got := releaseOf(pid); got != release {
				return fmt.Sprintf("worker %d is of release %q, not %q", pid, got, release)
			}
		}
		return ""
	})
}

// startWatched starts a service with a control socket and a probation, and returns a
// function that asks it for something, with what it is told.
func startWatched(t *testing.T, env ...string) (*service, *control.Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control")
	return startService(t, 2, append(env, "TEST_CONTROL="+path)...), control.NewClient(path)
}

// told is what somebody is told of an upgrade, and what became of it.
func told(t *testing.T, ask func(context.Context, control.Wait, func(control.Event)) (control.Event, error)) (last control.Event, steps string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var b strings.Builder
	last, err := ask(ctx, control.WaitProbation, func(ev control.Event) { fmt.Fprintln(&b, ev.Text) })
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	return last, b.String()
}

// TestRollback: a release that comes up and fails later is gone back from by itself, to a
// binary that has no file any more, and no client notices.
func TestRollback(t *testing.T) {
	for release, why := range map[string]string{"fails later": "the cache is full", "sick": "/healthz answers 500"} {
		t.Run(release, func(t *testing.T) {
			s, c := startWatched(t, "TEST_PROBATION=30s", "TEST_HEALTH=http:/healthz")
			l := s.loadOf(20, map[load.Kind]int{load.New: 3})
			for round := range 2 {
				generation := 2*round + 2
				s.deploy(release)
				last, steps := told(t, c.Upgrade)
				if last.Result != control.RolledBack || !strings.Contains(last.Reason, why) || last.Generation != generation+1 {
					t.Fatalf("%+v\n%s", last, steps)
				}
				if want := fmt.Sprintf("generation %d has failed its probation: ", generation); !strings.Contains(steps, want) {
					t.Errorf("no word of the failure:\n%s", steps)
				}
				answered(t, l, fmt.Sprintf("generation=%d", generation+1))
				s.runs("")
				st, _, err := c.Status(t.Context())
				if err != nil || st.Upgrade == nil || st.Upgrade.Result != control.RolledBack || st.Upgrade.Generation != generation ||
					!strings.Contains(st.Upgrade.Reason, why) || st.Previous != 0 {
					t.Errorf("%+v, previous %d, %v", st.Upgrade, st.Previous, err)
				}
			}
			check(t, l)
			s.settle()
			s.stop()
		})
	}
}

// TestRollbackSockets: a socket that the release does without stays open as long as it is on
// probation, and its clients wait for the way back. Then it is closed.
func TestRollbackSockets(t *testing.T) {
	s, c := startWatched(t, "TEST_PROBATION=4s", "TEST_LISTEN=http=tcp://127.0.0.1:0,admin=tcp://127.0.0.1:0")
	one := map[load.Kind]int{load.New: 3}
	l, admin := s.loadAt(s.addrOf("http"), 20, one), s.loadAt(s.addrOf("admin"), 20, one)
	s.deploy("fails later, one socket less")
	if last, steps := told(t, c.Upgrade); last.Result != control.RolledBack {
		t.Fatalf("%+v\n%s", last, steps)
	}
	answered(t, admin, "generation=3")
	check(t, admin)
	s.deploy("one socket less")
	from := s.mark()
	if last, steps := told(t, c.Upgrade); last.Result != control.Done {
		t.Fatalf("%+v\n%s", last, steps)
	}
	if _, err := s.waitFrom(from, has(`msg="socket closed, it is not in this generation's configuration"`)); err != nil {
		t.Fatal(err)
	}
	check(t, l)
	s.settle()
	s.stop()
}

// TestRollbackUnixSocket: a unix socket that the release did without, and that the next one
// has again, keeps its file, although the probation ends while that one is being started.
// A service that stops leaves none.
func TestRollbackUnixSocket(t *testing.T) {
	dir := t.TempDir()
	admin, fifo := filepath.Join(dir, "admin"), filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s, c := startWatched(t, "TEST_PROBATION=2s", "TEST_FIFO="+fifo, "TEST_LISTEN=http=tcp://127.0.0.1:0,admin=unix://"+admin)
	s.deploy("one socket less")
	s.upgrade()
	s.deploy("waits")
	from := s.mark()
	result := make(chan control.Event, 1)
	go func() { last, _ := told(t, c.Upgrade); result <- last }()
	if _, err := s.waitFrom(from, has(`msg="socket closed, it is not in this generation's configuration"`)); err != nil {
		t.Fatal(err)
	}
	open, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if last := <-result; last.Result != control.Done || last.Generation != 3 {
		t.Errorf("%+v", last)
	}
	if conn, err := net.Dial("unix", admin); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	s.settle()
	s.deploy("one socket less")
	s.upgrade()
	s.stop()
	if _, err := os.Lstat(admin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// TestRollbackByHand: whoever wants to, goes back, but only once; what is on disk is
// upgraded to again. What has not proven itself is not what is gone back to.
func TestRollbackByHand(t *testing.T) {
	s, c := startWatched(t, "TEST_PROBATION=3s")
	l := s.load(10)
	if last, _ := told(t, c.Rollback); last.Result != control.Failed || !strings.Contains(last.Reason, "no generation to go back to") {
		t.Errorf("in the first generation: %+v", last)
	}
	s.deploy("second")
	if last, steps := told(t, c.Upgrade); last.Result != control.Done || !strings.Contains(steps, "is watched for 3s") {
		t.Errorf("%+v\n%s", last, steps)
	}
	s.runs("second")
	// What has not proven itself yet is passed over.
	s.deploy("third")
	s.settle()
	s.upgrade()
	s.deploy("fourth")
	s.upgrade()
	if err := os.Remove(s.bin); err != nil {
		t.Fatal(err)
	}
	if last, steps := told(t, c.Rollback); last.Result != control.Done || last.Generation != 5 {
		t.Errorf("%+v\n%s", last, steps)
	}
	s.runs("second")
	if last, _ := told(t, c.Rollback); last.Result != control.Failed {
		t.Errorf("once more: %+v", last)
	}
	s.deploy("fifth")
	if last, _ := told(t, c.Upgrade); last.Result != control.Done {
		t.Errorf("on: %+v", last)
	}
	s.runs("fifth")
	check(t, l)
	s.settle()
	s.stop()
}

// TestRollbackAfterDeath: the way back outlives the parents that know it, with the binary that it
// leads to, and what is known of the last upgrade does, too.
func TestRollbackAfterDeath(t *testing.T) {
	s, c := startWatched(t, "TEST_PROBATION=100ms")
	l := s.load(10)
	s.deploy("second")
	if last, _ := told(t, c.Upgrade); last.Result != control.Done {
		t.Errorf("%+v", last)
	}
	if err := os.Remove(s.bin); err != nil {
		t.Fatal(err)
	}
	s.settle()
	for range 2 {
		s.killParent()
		s.runs("second")
		st, _, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Previous != 1 || st.Upgrade == nil || st.Upgrade.Result != control.Done || st.Upgrade.Generation != 2 {
			t.Errorf("previous %d, last upgrade %+v", st.Previous, st.Upgrade)
		}
	}
	if last, steps := told(t, c.Rollback); last.Result != control.Done || last.Generation != 3 {
		t.Errorf("%+v\n%s", last, steps)
	}
	s.runs("")
	s.settle()
	s.killParent()
	s.runs("")
	if last, _ := told(t, c.Rollback); last.Result != control.Failed || !strings.Contains(last.Reason, "no generation to go back to") {
		t.Errorf("once more: %+v", last)
	}
	check(t, l)
	s.stop()
}

// TestRollbackFails: what is gone back to does not come up any more. The service goes on
// with what it has, and says so; a good release mends it.
func TestRollbackFails(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	open := func() {
		t.Helper()
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open()
	s, c := startWatched(t, "TEST_PROBATION=30s", "TEST_GATE="+gate, "TEST_HEALTH=http:/healthz",
		"TEST_LISTEN=http=tcp://127.0.0.1:0,admin=tcp://127.0.0.1:0")
	l := s.loadAt(s.addrOf("http"), 10, map[load.Kind]int{load.New: 3})
	s.deploy("sick, one socket less")
	from := s.mark()
	go func() { // once it serves, nobody else comes up
		if _, err := s.waitFrom(from, has(`msg="generation serves"`)); err == nil {
			os.Remove(gate)
		}
	}()
	last, steps := told(t, c.Upgrade)
	if last.Result != control.Stopped || !strings.Contains(last.Reason, "and going back failed: ") || !strings.Contains(last.Reason, "no such file") {
		t.Errorf("%+v\n%s", last, steps)
	}
	s.runs("sick, one socket less")
	// Nobody is to wait for what does not come.
	if _, err := s.waitFrom(from, has(`msg="socket closed, it is not in this generation's configuration"`)); err != nil {
		t.Error(err)
	}
	open()
	s.deploy("good")
	s.upgrade()
	s.runs("good")
	check(t, l)
	s.stop()
}

// TestUpgradeEndsProbation: who waits for a probation that another upgrade ends, waits for
// that one's.
func TestUpgradeEndsProbation(t *testing.T) {
	s, c := startWatched(t, "TEST_PROBATION=1s")
	l := s.load(10)
	from := s.mark()
	type answer struct {
		control.Event
		steps string
	}
	first := make(chan answer, 1)
	go func() {
		last, steps := told(t, c.Upgrade)
		first <- answer{last, steps}
	}()
	if _, err := s.waitFrom(from, has(`msg="generation serves"`)); err != nil {
		t.Fatal(err)
	}
	second, steps := told(t, c.Upgrade)
	if second.Result != control.Done || second.Generation != 3 {
		t.Errorf("the second: %+v\n%s", second, steps)
	}
	if a := <-first; a.Result != control.Done || a.Generation != 3 {
		t.Errorf("the first: %+v\n%s", a.Event, a.steps)
	}
	check(t, l)
	s.stop()
}
