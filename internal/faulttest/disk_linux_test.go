package faulttest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

var diskRows = []row{
	{
		name: "disk-full-pid-file", fault: "disk full where the PID file is",
		costs: "no upgrade; the PID file stays as it is, and right",
		more:  func(s *service) []string { return []string{"--pid-file", filepath.Join(s.disk(), "pid")} },
		begin: (*service).fill, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: PID file …/pid: …no space left on device"}},
	},
	{
		name: "disk-full-control", fault: "disk full where the control socket is",
		costs: "nothing: the socket is there",
		start: func(s *service) { s.moveControl(filepath.Join(s.disk(), "c")) },
		begin: (*service).fill,
	},
	{
		name: "disk-full-log", fault: "disk full where the log is",
		costs: "what is said meanwhile",
		start: func(s *service) { s.logTo(filepath.Join(s.disk(), "log")) },
		begin: (*service).fill,
	},
}

// disk is a small one, for this service.
func (s *service) disk() string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "disk")
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return dir
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=256k,nr_inodes=32"); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves no room on it, neither for a byte nor for a name.
func (s *service) fill() (end func()) {
	s.t.Helper()
	var made []string
	for i := 0; ; i++ {
		if i > 1000 {
			s.t.Fatal("the disk does not get full")
		}
		name := filepath.Join(s.disk(), fmt.Sprint("full", i))
		err := os.WriteFile(name, make([]byte, 8<<10), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			made = append(made, name)
			continue
		}
		if _, serr := os.Stat(name); serr != nil { // not even a name
			break
		}
		made = append(made, name)
	}
	return func() {
		for _, name := range made {
			if err := os.Remove(name); err != nil {
				s.t.Error(err)
			}
		}
	}
}
