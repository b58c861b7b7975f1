package launch

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStatus(t *testing.T) {
	checkFiles(t)
	for script, want := range map[string]Status{
		"exit 0":          {Known: true},
		"exit 1":          {Known: true, Code: 1},
		"exit 255":        {Known: true, Code: 255},
		"kill -KILL $$":   {Known: true, Code: -1, Signal: 9},
		"kill -TERM $$":   {Known: true, Code: -1, Signal: 15},
		"kill -USR1 $$":   {Known: true, Code: -1, Signal: 10},
		"exit $((256+3))": {Known: true, Code: 3},
	} {
		c := begin(t, shell(script))
		if got := c.Wait(); got != want {
			t.Errorf("%s: %+v", script, got)
		}
		<-c.Done()
		if got := c.Wait(); got != want {
			t.Errorf("%s, asked again: %+v", script, got)
		}
		if err := c.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
			t.Errorf("%s: signal: %v", script, err)
		}
	}
}

func TestStartErrors(t *testing.T) {
	checkFiles(t)
	dir := t.TempDir()
	file := func(name, text string, mode fs.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	self, err := os.ReadFile(Self)
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	plain := file("plain", "#!/bin/sh\n", 0o644)
	for _, c := range []struct {
		name string
		spec Spec
		is   error
		says string
	}{
		{"missing", Spec{Path: missing}, fs.ErrNotExist, "execute " + missing},
		{"below a file", Spec{Path: plain + "/x"}, syscall.ENOTDIR, "execute"},
		{"directory", Spec{Path: dir}, fs.ErrPermission, "is a directory"},
		{"mode", Spec{Path: plain}, fs.ErrPermission, "has no x"},
		{"text", Spec{Path: file("text", "hello", 0o755)}, syscall.ENOEXEC, "neither a program for this machine"},
		{"empty", Spec{Path: file("empty", "", 0o755)}, syscall.ENOEXEC, "neither a program for this machine"},
		{"truncated", Spec{Path: file("truncated", string(self[:60]), 0o755)}, syscall.ENOEXEC, "truncated"},
		{"interpreter", Spec{Path: file("script", "#!/no/such/shell\n", 0o755)}, fs.ErrNotExist, "interpreter"},
		{"no directory", Spec{Path: "/bin/true", Dir: missing}, fs.ErrNotExist, "working directory"},
		{"file as directory", Spec{Path: "/bin/true", Dir: plain}, syscall.ENOTDIR, "working directory"},
		{"relative", Spec{Path: "plain", Dir: dir}, fs.ErrPermission, "has no x"},
		{"zero byte", Spec{Path: "/bin/true", Args: []string{"a\x00b"}}, syscall.EINVAL, "zero byte"},
		{"zero byte in environment", Spec{Path: "/bin/true", Env: []string{"A=\x00"}}, syscall.EINVAL, "zero byte"},
		{"too long", Spec{Path: "/bin/true", Args: []string{strings.Repeat("x", 1<<20)}}, syscall.E2BIG, "too large"},
		{"closed descriptor", Spec{Path: "/bin/true", Fds: []int{0, 1, 2, 9999}}, syscall.EBADF, "descriptor"},
		{"session and group", Spec{Path: "/bin/true", Setsid: true, Setpgid: true}, fs.ErrPermission, "execute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Start(c.spec)
			if err == nil {
				p.Wait()
				p.Close()
				t.Fatal("it was started")
			}
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v and %q", err, c.is, c.says)
			}
		})
	}
	if pids := Children(); len(pids) > 0 || len(known.owner) > 0 {
		t.Errorf("children %v, known %v", pids, known.owner)
	}
}

func TestWorkingDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	spec := shell("pwd -P")
	spec.Dir = dir
	c := begin(t, spec)
	if got := c.line(); got != dir {
		t.Errorf("%s, not %s", got, dir)
	}
}

// A child has what it was given, in that order, and nothing else.
func TestDescriptors(t *testing.T) {
	checkFiles(t)
	other := cat(t) // has a pidfd and pipes open here
	defer other.Wait()
	defer other.in.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var c *child
	var socket string
	if err := rc.Control(func(fd uintptr) {
		socket = link("self", int(fd))
		c = begin(t, Spec{Path: "/bin/cat", Fds: []int{fdOf(t, null), int(fd)}})
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("the listening socket's flags here: %#x, %v", flags, err)
		}
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("the listening socket's descriptor flags here: %#x, %v", flags, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	c.tell("hello") // its loader has come to an end when it answers
	c.line()
	pid := strconv.Itoa(c.Pid)
	list, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 5 || link(pid, 3) != os.DevNull || link(pid, 4) != socket {
		t.Errorf("descriptors %v, 3 is %s, 4 is %s", list, link(pid, 3), link(pid, 4))
	}
	info, err := os.ReadFile("/proc/" + pid + "/fdinfo/4")
	if err != nil {
		t.Fatal(err)
	}
	var flags int64
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, _ = strconv.ParseInt(strings.TrimSpace(v), 8, 64)
		}
	}
	if flags&unix.O_NONBLOCK == 0 || flags&unix.O_CLOEXEC != 0 {
		t.Errorf("the listening socket's flags there: %#o", flags)
	}
}

// Numbers that cross each other.
func TestDescriptorOrder(t *testing.T) {
	checkFiles(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a, b := fdOf(t, r), fdOf(t, w)
	// What is at place i comes from a place behind it, and the other way round.
	fds := slices.Repeat([]int{b, a}, 10)
	c, err := Start(Spec{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Fds: append([]int{0, 1, 2}, fds...)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer c.Wait()
	defer func() { _ = c.Signal(syscall.SIGKILL) }()
	for i, fd := range fds {
		if got, want := link(strconv.Itoa(c.Pid), 3+i), link("self", fd); got != want {
			t.Errorf("descriptor %d is %s, not %s", 3+i, got, want)
		}
	}
}

func link(pid string, fd int) string {
	s, _ := os.Readlink("/proc/" + pid + "/fd/" + strconv.Itoa(fd))
	return s
}

func TestSessionAndGroup(t *testing.T) {
	for _, c := range []struct{ sid, pgid bool }{{false, false}, {true, false}, {false, true}} {
		p := begin(t, Spec{Path: "/bin/cat", Setsid: c.sid, Setpgid: c.pgid})
		sid, err := unix.Getsid(p.Pid)
		if err != nil || (sid == p.Pid) != c.sid {
			t.Errorf("%+v: session %d of process %d, %v", c, sid, p.Pid, err)
		}
		pgid, err := unix.Getpgid(p.Pid)
		if err != nil || (pgid == p.Pid) != (c.pgid || c.sid) {
			t.Errorf("%+v: group %d of process %d, %v", c, pgid, p.Pid, err)
		}
	}
}

func TestNoArguments(t *testing.T) {
	c := begin(t, Spec{Path: "/bin/cat"})
	until(t, "its arguments are its path", func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(c.Pid) + "/cmdline")
		return string(b) == "/bin/cat\x00"
	})
}
