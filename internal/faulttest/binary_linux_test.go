package faulttest_test

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var binaryRows = []row{
	{
		name: "binary-machine", fault: "the new binary is for another machine", costs: "no upgrade",
		begin: func(s *service) func() {
			return s.broken(0o755, func(b []byte) []byte { b[18], b[19] = byte(elf.EM_RISCV), byte(elf.EM_RISCV>>8); return b })
		}, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: execute …/shop: a program for another machine, EM_RISCV: exec format error"}},
	},
	{
		name: "binary-empty", fault: "it is empty", costs: "no upgrade",
		begin: func(s *service) func() { return s.broken(0o755, func(b []byte) []byte { return nil }) }, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: execute …/shop: neither a program for this machine nor a script with an interpreter in its first line, as #!/bin/sh: exec format error"}},
	},
	{
		name: "binary-cut-in-header", fault: "it was cut in its header", costs: "no upgrade",
		begin: func(s *service) func() { return s.broken(0o755, func(b []byte) []byte { return b[:50] }) }, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: execute …/shop: a truncated or broken program, …: exec format error"}},
	},
	{
		name: "binary-cut", fault: "it was cut somewhere else", costs: "no upgrade",
		begin: func(s *service) func() { return s.broken(0o755, func(b []byte) []byte { return b[:len(b)/2] }) }, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: execute …/shop: a truncated program, … bytes of at least …: copy it again, and put it in place by rename: exec format error"}},
	},
	{
		name: "binary-no-x", fault: "its mode has no x", costs: "no upgrade",
		begin: func(s *service) func() { return s.broken(0o644, func(b []byte) []byte { return b }) }, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: …/shop…: permission denied: its mode -rw-r--r-- has no x: chmod +x"}},
	},
	{
		name: "binary-noexec", fault: "it lies on a file system that is mounted `noexec`", costs: "no upgrade",
		begin: (*service).noexec, fails: true,
		says: []saying{{byUpgrade, "nothing has changed: …/shop…: permission denied: it lies on a file system that is mounted noexec"}},
	},
}

// broken puts a broken copy in the program's place.
func (s *service) broken(mode os.FileMode, spoil func([]byte) []byte) (end func()) {
	s.t.Helper()
	s.put(func(tmp string) error {
		b, err := os.ReadFile(command)
		return errors.Join(err, os.WriteFile(tmp, spoil(b), mode), os.Chmod(tmp, mode))
	})
	return s.good
}

// noexec puts a symbolic link in the program's place that leads to such a file system.
func (s *service) noexec() (end func()) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "noexec")
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, "")); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	b, err := os.ReadFile(command)
	if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "shop"), b, 0o755)); err != nil {
		s.t.Fatal(err)
	}
	s.put(func(tmp string) error { return os.Symlink(filepath.Join(dir, "shop"), tmp) })
	return s.good
}
