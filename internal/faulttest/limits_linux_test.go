package faulttest_test

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

const tooMany = "too many open files (of this process the limit is …, to be raised by LimitNOFILE= or ulimit -n)"

var limitRows = []row{
	{
		name: "descriptors", fault: "the parent is at its limit of descriptors (`EMFILE`)",
		costs: "no upgrade, and no replacement for a worker that dies, until there are more",
		begin: func(s *service) func() { return s.descriptors(0) }, fails: true,
		says: []saying{
			{byUpgrade, "nothing has changed: …" + tooMany},
			{byStatus, "web/1 is empty after …: worker web/1: not started: …" + tooMany},
			{byLog, "worker could not be started…" + tooMany},
		},
	},
	{
		name: "descriptors-few", fault: "the same, and it has some more",
		costs: "the same",
		begin: func(s *service) func() { return s.descriptors(8) }, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: …" + tooMany}},
	},
	{
		name: "processes", fault: "the parent's user may have no more processes (`EAGAIN`)", user: 64101,
		costs: "no upgrade, and no replacement for a worker that dies, until there may be more",
		begin: func(s *service) func() { return s.limited("nproc", 1, 1<<16) }, fails: true,
		says: []saying{
			{byUpgrade, "nothing has changed: execute …/shop: no more processes or threads may be started, of this user (LimitNPROC=, ulimit -u) or in this control group (TasksMax=, pids.max): resource temporarily unavailable"},
			{byStatus, "not started: execute /proc/self/exe: no more processes or threads may be started"},
		},
	},
	{
		name: "processes-all", fault: "the same limit, and all processes of the service have it (`LimitNPROC=`)", user: 64103,
		costs: "the same",
		begin: (*service).unforked, fails: true,
		says: []saying{
			{byUpgrade, "nothing has changed: execute …/shop: no more processes or threads may be started"},
			{byStatus, "not started: execute /proc/self/exe: no more processes or threads may be started"},
		},
	},
	{
		name: "processes-group", fault: "the control group may have no more processes (`TasksMax=`, `--pids-limit`)",
		costs: "the same",
		start: func(s *service) { s.group("pids", "pids.max", "pids.max", 1<<16) },
		begin: (*service).full, fails: true,
		says: []saying{
			{byUpgrade, "nothing has changed: execute …/shop: no more processes or threads may be started"},
			{byStatus, "not started: execute /proc/self/exe: no more processes or threads may be started"},
		},
	},
	{
		name: "in-flight", fault: "the user has as many descriptors on their way between processes as he may (`ETOOMANYREFS`)", user: 64102,
		costs: "no upgrade until there are less; connections stay in the worker that has them",
		start: func(s *service) { s.by("sh", "-c", `ulimit -n 400 && exec "$0" "$@"`) },
		begin: (*service).hoard, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: …too many references: cannot splice (descriptors that this user's processes send to one another, at most 400, to be raised by LimitNOFILE= or ulimit -n)"}},
	},
}

// limited sets a limit of the parent's, and sets it to what is enough in the end.
func (s *service) limited(what string, limit, enough uint64) (end func()) {
	s.t.Helper()
	pid := s.parent()
	s.prlimit(pid, what, limit)
	return func() { s.prlimit(pid, what, enough) }
}

// unforked lets no process of the service's start another, nor a thread.
func (s *service) unforked() (end func()) {
	s.t.Helper()
	limit := func(n uint64) {
		all, err := procs.Descendants(s.cmd.Process.Pid)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range append(all, procs.Process{PID: s.cmd.Process.Pid}) {
			s.prlimit(p.PID, "nproc", n)
		}
	}
	limit(1)
	return func() { limit(1 << 16) }
}

// full leaves the service's control group no room for another process or thread.
func (s *service) full() (end func()) {
	s.t.Helper()
	limit := func(n int) {
		if err := os.WriteFile(filepath.Join(s.cgroup, "pids.max"), fmt.Append(nil, n), 0); err != nil {
			s.t.Fatal(err)
		}
	}
	limit(1) // who is there stays
	return func() { limit(1 << 16) }
}

// descriptors leaves the parent so many numbers for new ones.
func (s *service) descriptors(free int) (end func()) {
	s.t.Helper()
	fds, limit := s.packed()
	for ; ; limit++ {
		if _, used := fds[limit]; used {
			continue
		}
		if free == 0 {
			break
		}
		free--
	}
	return s.limited("nofile", uint64(limit), 1024)
}

// packed are the parent's descriptors, with none free below the one that is kept for who asks what
// is the matter, and the number after that one: of some parents it has a high number.
func (s *service) packed() (fds map[int]string, after int) {
	s.t.Helper()
	s.until(func() string {
		fds = s.atRest()
		used := slices.Sorted(maps.Keys(fds))
		i := slices.IndexFunc(used, func(n int) bool { return n > 2 && fds[n] == os.DevNull })
		if i < 0 || used[i] != i {
			s.upgrade()
			return fmt.Sprintf("the spare descriptor is none, or not the next one: %v", fds)
		}
		after = i + 1
		return ""
	})
	return fds, after
}

// atRest are the parent's descriptors when it closes none any more that it had for the upgrade
// before: it would have their numbers, too.
func (s *service) atRest() (fds map[int]string) {
	s.t.Helper()
	s.settles()
	pid, same := s.parent(), 0
	s.until(func() string {
		now, err := procs.FDs(pid)
		if err != nil {
			s.t.Fatal(err)
		}
		if same++; !maps.Equal(now, fds) {
			fds, same = now, 0
		}
		if same < 20 {
			return "the parent's descriptors change again and again"
		}
		return ""
	})
	return fds
}

const hoarderName = "hoarder"

func init() { programs[hoarderName] = hoarderMain }

// hoarderMain sends three messages of descriptors to itself, and reads them when its
// standard input ends.
func hoarderMain() {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	for range 3 {
		if err == nil {
			err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(make([]int, 253)...), nil, 0)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// hoard has another process of the service's user have all descriptors on their way that he may.
func (s *service) hoard() (end func()) {
	s.t.Helper()
	cmd := &exec.Cmd{Path: self, Args: []string{hoarderName}, SysProcAttr: &syscall.SysProcAttr{Credential: s.cmd.SysProcAttr.Credential}}
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	ready := make([]byte, 5)
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready" {
		s.t.Fatalf("%q, %v", ready, err)
	}
	return func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			s.t.Error(err)
		}
	}
}

// TestDescriptorsFromTheStart: with whatever number of descriptors a service was started, it
// serves or says why not, and so it is with an upgrade of it.
func TestDescriptorsFromTheStart(t *testing.T) {
	var started, upgraded [2]int
	step := 14
	if all() {
		step = 2
	}
	for limit := 8; limit < 64; limit += step {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			s := prepare(t, row{start: func(s *service) { s.by("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, limit)) }})
			s.launch()
			if !s.comesUp() {
				started[0]++
				if code := s.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(s.said(), "too many open files (of this process the limit is "+fmt.Sprint(limit)) {
					t.Errorf("it does not serve, exit code %d: %s", code, s.said())
				}
				return
			}
			started[1]++
			s.begin()
			serving, parent := len(s.serving()), s.parent()
			switch out, code := s.handover("upgrade", "--wait", "serve"); {
			case code == 0:
				upgraded[1]++
			case code == 1:
				upgraded[0]++
				if !strings.Contains(out, "nothing has changed") || !strings.Contains(out, "too many open files (of this process the limit is "+fmt.Sprint(limit)) &&
					!strings.Contains(out, "is this process at its limit of open files?") {
					t.Errorf("upgrade: %s", out)
				}
				if s.parent() != parent || len(s.serving()) < serving {
					t.Errorf("something has changed: parent %d, workers %v", s.parent(), s.serving())
				}
			default:
				t.Errorf("upgrade: exit code %d: %s", code, out)
			}
			s.end()
			s.stop()
		})
	}
	t.Logf("did not start, started: %v; did not upgrade, upgraded: %v", started, upgraded)
	if all := started[0]+started[1] == 28; all && (started[0] == 0 || upgraded[0] == 0 || upgraded[1] == 0) {
		t.Error("one of them never happened")
	}
}
