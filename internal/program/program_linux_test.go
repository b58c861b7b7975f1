package program

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCheck: what execve(2) would refuse is said with its reason, and what it would not
// refuse is good.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	formats = filepath.Join(dir, "formats") // as if the kernel knew no others
	t.Cleanup(func() { formats = "/proc/sys/fs/binfmt_misc" })
	t.Setenv("PATH", dir)
	file := func(name, text string, mode fs.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	machine := []byte(string(b))
	machine[18], machine[19] = 0xf3, 0 // EM_RISCV
	interp := func(name string) string {
		b, err := os.ReadFile("/bin/sh")
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), "/ld-linux", "/no-linux", 1)
		if text == string(b) {
			text = strings.Replace(text, "/ld-musl", "/no-musl", 1)
		}
		return file(name, text, 0o755)
	}
	script := file("script", "#! /bin/sh -e\n", 0o755)
	deep := script
	for _, name := range []string{"1", "2", "3", "4"} {
		deep = file(name, "#!"+deep+"\n", 0o755)
	}
	for _, c := range []struct {
		path string
		is   error
		says string
	}{
		{self, nil, ""},
		{"/bin/sh", nil, ""},
		{script, nil, ""},
		{file("env", "#!/usr/bin/env script\n", 0o755), nil, ""},
		{file("split", "#!/usr/bin/env -S A=b script -x\n", 0o755), nil, ""},
		{file("option", "#!/usr/bin/env -i nothing\n", 0o755), nil, ""},
		{filepath.Join(dir, "3"), nil, ""},
		{filepath.Join(dir, "nothing"), fs.ErrNotExist, "nothing"},
		{dir, nil, "not a file"},
		{file("plain", "#!/bin/sh\n", 0o644), fs.ErrPermission, "plain: permission denied: its mode -rw-r--r-- has no x"},
		{file("text", "hello", 0o755), syscall.ENOEXEC, "neither a program"},
		{file("short", "#", 0o755), syscall.ENOEXEC, "neither a program"},
		{file("empty", "", 0o755), syscall.ENOEXEC, "neither a program"},
		{file("nobody", "#!\n", 0o755), nil, "names no interpreter"},
		{file("lost", "#!/no/such/shell\n", 0o755), fs.ErrNotExist, "its first line: interpreter stat /no/such/shell"},
		{file("windows", "#!/bin/sh\r\n", 0o755), nil, "carriage return"},
		{file("lost env", "#!/usr/bin/env no-such-thing\n", 0o755), nil, `interpreter exec: "no-such-thing"`},
		{file("by plain", "#!"+filepath.Join(dir, "plain")+"\n", 0o755), fs.ErrPermission, "interpreter"},
		{deep, nil, "too many scripts"},
		{file("truncated", string(b[:40]), 0o755), nil, "truncated or broken"},
		{file("cut", string(b[:4000]), 0o755), syscall.ENOEXEC, "a truncated program, 4000 bytes of at least "},
		{file("machine", string(machine), 0o755), syscall.ENOEXEC, "another machine, EM_RISCV"},
		{interp("loader"), fs.ErrNotExist, "dynamic loader is missing"},
	} {
		err := Check(c.path)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.path, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, not %q", c.path, err, c.says)
		case c.is != nil && !errors.Is(err, c.is):
			t.Errorf("%s: %v, not %v", c.path, err, c.is)
		}
	}
	// A kernel that was told of other formats may execute anything.
	if err := os.Mkdir(formats, 0o755); err != nil {
		t.Fatal(err)
	}
	file("formats/register", "", 0o644)
	if err := Check(filepath.Join(dir, "text")); err == nil {
		t.Error("a text can be executed")
	}
	file("formats/qemu", "", 0o644)
	for _, name := range []string{"text", "machine"} {
		if err := Check(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestWhole: wherever a program was cut, what has to be loaded of it is missed or all there.
func TestWhole(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	end := int(lastByte(f))
	f.Close()
	if end < len(b)/2 || end > len(b) {
		t.Fatalf("of %d bytes %d have to be loaded", len(b), end)
	}
	dir := t.TempDir()
	for size, cut := range map[int]bool{
		0: false, 10: false, 63: false, // no program at all, which the kernel does not execute
		1 << 10: true, 4 << 10: true, len(b) / 3: true, end - 1: true, end: false, len(b): false,
	} {
		path := filepath.Join(dir, "cut")
		if err := os.WriteFile(path, b[:size], 0o755); err != nil {
			t.Fatal(err)
		}
		err := Whole(path)
		if (err != nil) != cut || cut && (!errors.Is(err, syscall.ENOEXEC) || !strings.Contains(err.Error(), "/cut: a truncated program, ")) {
			t.Errorf("%d of %d bytes: %v", size, len(b), err)
		}
	}
	for _, path := range []string{"/proc/self/exe", "/bin/sh", dir, filepath.Join(dir, "missing"), "/dev/null"} {
		if err := Whole(path); err != nil {
			t.Error(err)
		}
	}
}
