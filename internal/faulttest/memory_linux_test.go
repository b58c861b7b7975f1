package faulttest_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var memoryRows = []row{
	{
		name: "memory-worker", fault: "the control group's memory is used up, and a worker is killed",
		costs: "the requests that it had",
		start: func(s *service) { s.group("memory", "memory.limit_in_bytes", "memory.max", memoryLimit) },
		begin: (*service).starve,
		says:  []saying{{byStatus, "killed by SIGKILL for want of memory (out of memory in its control group)"}, {byLog, "for want of memory"}},
	},
	{
		name: "memory-parent", fault: "the same, and it is the parent that is killed",
		costs: "an upgrade under way; the workers serve on, and the next parent takes them over",
		start: func(s *service) { s.group("memory", "memory.limit_in_bytes", "memory.max", memoryLimit) },
		begin: (*service).starveParent,
		says:  []saying{{byLog, "the parent is gone: another one is started, which goes on with what it left…killed by SIGKILL"}},
	},
}

const memoryLimit = 256 << 20

const groupRoot = "/sys/fs/cgroup"

// group puts the service into a control group of its own with one setting, named as cgroup v1
// and v2 name it.
func (s *service) group(controller, v1, v2 string, value int) {
	s.t.Helper()
	parent, file := filepath.Join(groupRoot, controller), v1
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil || fs.Type != unix.CGROUP_SUPER_MAGIC {
		parent, file = groupRoot, v2
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			s.t.Fatalf("neither cgroup v1 nor v2 has a controller %s for this test: %v", controller, err)
		}
	}
	dir := filepath.Join(parent, fmt.Sprintf("handover-fault-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.until(func() string { return text(os.Remove(dir)) }) })
	if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, value), 0); err != nil {
		s.t.Fatal(err)
	}
	s.cgroup = dir
	s.by("sh", "-c", `echo $$ >"`+filepath.Join(dir, "cgroup.procs")+`" && exec "$0" "$@"`)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// starve has a worker use up all memory. Nobody else asks meanwhile: what a worker has when the
// kernel kills it is lost.
func (s *service) starve() (end func()) {
	s.t.Helper()
	s.end()
	if resp, err := http.Get("http://" + s.addr + "/grow?mb=512"); err == nil {
		out, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		s.t.Errorf("it grows beyond the limit: %s", out)
	}
	s.settles()
	s.begin()
	return func() {}
}

// oomKills is how many processes of the control group the kernel has killed for want of memory.
func (s *service) oomKills() string {
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		b, err := os.ReadFile(filepath.Join(s.cgroup, file))
		if err == nil {
			return match(string(b), `(?m)^oom_kill (\d+)$`)
		}
	}
	s.t.Fatal("the control group does not say how many were killed")
	return ""
}

const hogName = "hog"

func init() { programs[hogName] = hogMain }

// hogMain takes another MiB of memory for each line that it reads, and answers.
func hogMain() {
	var all [][]byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		all = append(all, bytes.Repeat([]byte{1}, 1<<20))
		fmt.Println(len(all))
	}
}

// starveParent has another process use up all memory, when the kernel prefers to kill the
// parent.
func (s *service) starveParent() (end func()) {
	s.t.Helper()
	parent := s.parent()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", parent), []byte("1000"), 0); err != nil {
		s.t.Fatal(err)
	}
	hog := exec.Command("sh", "-c", `echo $$ >"`+filepath.Join(s.cgroup, "cgroup.procs")+`" && exec -a `+hogName+` "$0"`, self)
	hog.Path, hog.Args[0] = "/bin/bash", "bash" // which can say what argv[0] is
	in, err := hog.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := hog.StdoutPipe()
	if err == nil {
		err = hog.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	// It stops at the first kill: what that frees takes a moment, and who goes on meanwhile gets
	// others killed.
	kills := s.oomKills()
	for mb := 0; s.oomKills() == kills; mb++ {
		_, werr := fmt.Fprintln(in)
		_, rerr := answers.ReadString('\n')
		if mb > 512 {
			s.t.Fatal("the parent is not killed")
		}
		if errors.Join(werr, rerr) != nil { // it is the hog that is killed, perhaps after the parent
			break
		}
	}
	in.Close()
	_ = hog.Wait()
	s.until(func() string {
		if !strings.Contains(s.said(), fmt.Sprintf("pid=%d", parent)) {
			return "nobody notices that the parent is dead"
		}
		st, _, err := s.control.Status(s.t.Context())
		if err == nil && st.Pid == parent {
			return "it lives"
		}
		return text(err)
	})
	s.settles()
	return func() {}
}
