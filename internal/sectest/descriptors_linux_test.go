package sectest

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/procs"
)

// kinds counts what a process has open, by kind. What Go's runtime has for itself is left out.
func kinds(t *testing.T, pid int) map[string]int {
	t.Helper()
	fds, err := procs.FDs(pid)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for fd, link := range fds {
		kind := link
		switch {
		case fd <= 2:
			kind = "standard"
		case strings.HasPrefix(link, "anon_inode:[event"), strings.Contains(link, "/cgroup/"), strings.HasPrefix(link, "/sys/"):
			continue
		case strings.HasPrefix(link, "anon_inode:[pidfd]"), strings.HasPrefix(link, "pidfd:"):
			kind = "pidfd"
		case strings.HasPrefix(link, "/memfd:"):
			kind, _, _ = strings.Cut(strings.TrimPrefix(link, "/memfd:"), " ")
			kind, _, _ = strings.Cut(kind, ":")
		case strings.HasPrefix(link, "socket:["):
			kind = "tcp"
			inode := strings.Trim(link, "socket:[]")
			if m := regexp.MustCompile(`(?m)^\S+ \S+ \S+ (\S+) (\S+) \S+ +` + inode + `\b`).FindStringSubmatch(string(list)); m != nil {
				kind = map[string]string{"0001": "unix stream", "0002": "unix datagram", "0005": "unix seqpacket"}[m[2]]
				if m[1] == "00010000" {
					kind += ", listening"
				}
			}
		}
		n[kind]++
	}
	return n
}

// TestDescriptors: every process of a service has what is its, and nobody but the first what
// whoever started the service had left open.
func TestDescriptors(t *testing.T) {
	s := start(t)
	web, admin, anchor := s.worker("web"), s.worker("admin"), s.cmd.Process.Pid
	worker := map[string]int{
		"standard": 3, "tcp": 1, "unix stream": 1, // its channel
		"unix seqpacket": 3,               // a queue's two ends and the home
		"crash":          2, "tickets": 1, // Go's runtime has a copy
	}
	for who, c := range map[string]struct {
		pid  int
		want map[string]int
	}{
		"web": {web, worker}, "admin": {admin, worker},
		"anchor": {anchor, map[string]int{
			"standard": 3, s.left: 1, "unix datagram": 1, "pidfd": 1, // its notification socket, and the parent
			"tcp": 2, "unix stream, listening": 1, "unix seqpacket": 8, "tickets": 2, "handover.memory": 1, // what is stored
		}},
	} {
		have := kinds(t, c.pid)
		for limit := time.Now().Add(patience); !maps.Equal(have, c.want) && time.Now().Before(limit); have = kinds(t, c.pid) {
			time.Sleep(5 * time.Millisecond) // the anchor is given things to store, one after the other
		}
		if !maps.Equal(have, c.want) {
			t.Errorf("%s has\n%v, not\n%v", who, have, c.want)
		}
	}
	have := slices.Sorted(maps.Keys(kinds(t, s.status.Pid)))
	have = slices.DeleteFunc(have, func(kind string) bool { return kind != s.left && strings.HasPrefix(kind, "pipe:") }) // tableflip's
	if want := []string{"/dev/null", "crash", "handover.memory", "pidfd", "standard", "tcp", "tickets", "unix seqpacket", "unix stream", "unix stream, listening"}; !slices.Equal(have, want) {
		t.Errorf("the parent has\n%q, not\n%q", have, want)
	}
	theirs, err := procs.FDs(admin)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := procs.FDs(web)
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range theirs {
		if strings.HasPrefix(link, "socket:[") && slices.Contains(slices.Collect(maps.Values(ours)), link) {
			t.Errorf("both groups have %s", link)
		}
	}
}

// names are the names of a process's variables.
func names(t *testing.T, pid int) (list []string) {
	t.Helper()
	env, err := procs.Environ(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		list = append(list, name)
	}
	return list
}

// TestVariables: workers get the service's environment, but nothing that leads to its parent, and
// no other group's.
func TestVariables(t *testing.T) {
	s := start(t)
	web, admin := names(t, s.worker("web")), names(t, s.worker("admin"))
	for _, list := range [][]string{web, admin} {
		for _, name := range []string{"NOTIFY_SOCKET", "FDSTORE", "HANDOVER_ANCHOR_PID", "HANDOVER_ROLE", "HANDOVER_SUCCESSION_FD", "LISTEN_PID", "WATCHDOG_USEC", "TABLEFLIP_HAS_PARENT_7DIU3"} {
			if slices.Contains(list, name) {
				t.Errorf("a worker has %s", name)
			}
		}
		if !slices.Contains(list, "SERVICE_TOKEN") {
			t.Error("a worker has not the service's environment")
		}
	}
	if slices.Contains(web, "ADMIN_PASSWORD") || !slices.Contains(admin, "ADMIN_PASSWORD") {
		t.Error("a group's variables are not that group's alone")
	}
}
