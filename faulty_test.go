//go:build linux

package handover_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/workerset"
)

func init() {
	onSteps = func() {
		fault.OnStep(func(step string) {
			if step == os.Getenv("TEST_FAULT_AT") {
				fail(step)
			}
		})
	}
}

// fail sends this process the signal whose number is in the file TEST_FAULT_ARMED, and
// has got it when it returns. Whoever renames the file is the only one; its new name
// tells the test which process that is.
func fail(step string) {
	armed := os.Getenv("TEST_FAULT_ARMED")
	sig, err := os.ReadFile(armed)
	if err != nil || os.Rename(armed, fmt.Sprintf("%s.%d", armed, os.Getpid())) != nil {
		return
	}
	n, _ := strconv.Atoi(string(sig))
	println("fault: " + step)
	// To the thread itself: another one would let this one go on for a while.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.Signal(n))
}

// faulty is a service of which one process takes a step of an upgrade badly.
type faulty struct {
	*service
	armed   string
	path    string // of its control socket
	control *control.Client
}

func startFaulty(t *testing.T, step string, env ...string) *faulty {
	t.Helper()
	dir := t.TempDir()
	f := &faulty{armed: filepath.Join(dir, "armed"), path: filepath.Join(dir, "control")}
	f.control = control.NewClient(f.path)
	f.service = startService(t, 2, append(env, "TEST_FAULT_AT="+step, "TEST_FAULT_ARMED="+f.armed,
		"TEST_CONTROL="+f.path)...)
	return f
}

// upgradeTo asks for an upgrade in which sig hits the process that takes the step. It
// returns the place in the log at which that begins.
func (f *faulty) upgradeTo(sig syscall.Signal) (from int) {
	f.t.Helper()
	if err := os.WriteFile(f.armed, []byte(strconv.Itoa(int(sig))), 0o600); err != nil {
		f.t.Fatal(err)
	}
	from = f.mark()
	f.signal(syscall.SIGHUP)
	return from
}

// hit waits until the signal has hit, and returns the process.
func (f *faulty) hit() (pid int) {
	f.t.Helper()
	until(f.t, 30*time.Second, func() string {
		found, _ := filepath.Glob(f.armed + ".*")
		if len(found) == 0 {
			return "the step is not taken"
		}
		pid, _ = strconv.Atoi(strings.TrimPrefix(filepath.Ext(found[0]), "."))
		return ""
	})
	return pid
}

// stopped waits until a process has been stopped at the step.
func (f *faulty) stopped() (pid int) {
	f.t.Helper()
	pid = f.hit()
	until(f.t, 10*time.Second, func() string {
		if s := statusOf(pid, "State"); !strings.HasPrefix(s, "T") {
			return fmt.Sprintf("process %d is not stopped: %s", pid, s)
		}
		return ""
	})
	return pid
}

// outcome is who decides after a fault.
type outcome string

const (
	oldDecides outcome = "the old parent decides"
	newDecides outcome = "the new parent decides"
	restarted  outcome = "the anchor starts another parent"
	nobody     outcome = "no parent is left"
)

// outcome waits until it is clear who decides.
func (f *faulty) outcome(from int) outcome {
	f.t.Helper()
	failed, serves, again := has("nothing has changed"), has(`msg="generation serves"`), has("the parent is gone: another one is started")
	line, err := f.waitFrom(from, func(line string) bool { return failed(line) || serves(line) || again(line) })
	switch {
	case err == nil && again(line):
		if _, err := f.waitFrom(from, serves); err != nil {
			f.t.Fatal(err)
		}
		return restarted
	case err == nil && failed(line):
		return oldDecides
	case err == nil:
		return newDecides
	}
	select {
	case <-f.exited:
	default:
		f.t.Fatal(err)
	}
	return nobody
}

// settle waits until the service is as it should be: the PID file's process
// decides, the workers are as many as were asked for, of one generation, and serve,
// and nothing else of the service is left.
func (f *faulty) settle() {
	f.t.Helper()
	until(f.t, 10*time.Second, func() string {
		ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
		defer cancel()
		st, _, err := f.control.Status(ctx)
		if err != nil {
			return err.Error()
		}
		procs := []int{f.parent()}
		if st.Pid != procs[0] {
			return fmt.Sprintf("process %d decides, the PID file says %d", st.Pid, procs[0])
		}
		ws := st.Groups[0].Workers
		for _, w := range ws {
			procs = append(procs, w.Pid)
		}
		if slices.ContainsFunc(ws, func(w workerset.Worker) bool {
			return w.State != "serving" || w.Stale || w.Generation != ws[0].Generation
		}) || len(ws) != 2 {
			return fmt.Sprintf("workers %+v", ws)
		}
		slices.Sort(procs)
		if there := living(f.t, f.cmd.Process.Pid); !slices.Equal(there, procs) {
			return fmt.Sprintf("processes %v, the service knows of %v", there, procs)
		}
		return ""
	})
}

// ended checks that the service ends with one of these codes and leaves nothing.
func (f *faulty) ended(codes ...int) {
	f.t.Helper()
	f.awaitExit(codes...)
	mine := "TEST_PIDFILE=" + f.pidFile + "\x00"
	for _, pid := range living(f.t, os.Getpid()) { // orphans are the test's
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); strings.Contains(string(b), mine) {
			f.t.Errorf("process %d is left", pid)
		}
	}
}

// witness asks the control socket all the time who decides. Once another process has
// answered, one that has answered before may do so again only if that one is dead.
func (f *faulty) witness() {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		last, before := 0, map[int]bool{}
		for ctx.Err() == nil {
			st, _, err := f.control.Status(ctx)
			if err == nil && st.Pid != last {
				if before[st.Pid] && statusOf(last, "State") != "" {
					f.t.Errorf("process %d decides, as it did before, while %d has decided and lives", st.Pid, last)
				}
				last = st.Pid
				before[last] = true
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	f.t.Cleanup(func() { cancel(); <-done })
}

// held is an upload that is in flight for as long as the test likes.
type held struct {
	accepted, finish chan struct{}
	worker           chan string // who has answered it, or what went wrong
}

// Read is called once, when the server has asked for the body.
func (h held) Read([]byte) (int, error) {
	close(h.accepted)
	<-h.finish
	return 0, io.EOF
}

// hold begins one, over a connection of its own, and waits until it has been accepted:
// what waits in the queue of a service that ends is nobody's. finish ends it.
func hold(t testing.TB, addr string) held {
	t.Helper()
	h := held{make(chan struct{}), make(chan struct{}), make(chan string, 1)}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/upload", h)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	req.Close = true
	go func() {
		resp, err := (&http.Transport{ExpectContinueTimeout: time.Minute}).RoundTrip(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if err != nil {
			h.worker <- err.Error()
			return
		}
		h.worker <- resp.Header.Get("X-Worker")
	}()
	select {
	case <-h.accepted:
	case what := <-h.worker:
		t.Fatal(what)
	case <-time.After(30 * time.Second):
		t.Fatal("nobody accepts")
	}
	return h
}

// holdFor is hold for a request that takes so long.
func holdFor(t testing.TB, addr string, d time.Duration) held {
	t.Helper()
	h := hold(t, addr)
	time.AfterFunc(d, func() { close(h.finish) })
	return h
}

// answeredBy waits for the answer of a worker.
func (h held) answeredBy(t *testing.T, worker string) {
	t.Helper()
	select {
	case w := <-h.worker:
		if !has(worker)(w) {
			t.Errorf("a request in flight at %s: %s", worker, w)
		}
	case <-time.After(30 * time.Second):
		t.Error("no answer to a request in flight")
	}
}

// living are the descendants of a process that have not ended.
func living(t testing.TB, pid int) (pids []int) {
	t.Helper()
	procs, err := procs.Descendants(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if p.State != 'Z' && p.State != 'X' {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// statusOf is a field of /proc/PID/status, "" for a process that has ended.
func statusOf(pid int, field string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if procField(string(b), "State") == "Z" {
		return ""
	}
	return procField(string(b), field)
}

func procField(status, field string) string {
	return match(status, `(?m)^`+field+`:\s+(\S+)`)
}
