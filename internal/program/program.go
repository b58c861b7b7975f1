// Package program looks whether a file could be executed, without doing it: execve(2) has
// one error number for many faults, and a trial start may change something.
package program

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Check says why the file can't be executed by this process. In case of doubt it can.
func Check(path string) error { return check(path, 0) }

// maxScripts is how deep the kernel follows scripts that are interpreters of scripts.
const maxScripts = 4

func check(path string, depth int) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a file", path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return &fs.PathError{Op: "execute", Path: path, Err: Denied(path, err)}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // it may be executed, and not read
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, err := io.ReadFull(f, head)
	switch head = head[:n]; {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case strings.HasPrefix(string(head), "#!"):
		if depth == maxScripts {
			return fmt.Errorf("%s: too many scripts that interpret scripts", path)
		}
		if err := script(f, depth); err != nil {
			return fmt.Errorf("%s: its first line: %w", path, err)
		}
	case string(head) == elf.ELFMAG:
		if err := compiled(f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	case runtime.GOOS == "linux" && !otherFormats():
		return fmt.Errorf("%s: neither a program for this machine nor a script with an interpreter in its first line, as #!/bin/sh: %w", path, syscall.ENOEXEC)
	}
	return nil
}

// script looks for the interpreter. For "env NAME" that is a program in PATH.
func script(f *os.File, depth int) error {
	if _, err := f.Seek(2, io.SeekStart); err != nil {
		return err
	}
	line, _ := bufio.NewReaderSize(f, 256).ReadString('\n')
	words := strings.Fields(line)
	if len(words) == 0 {
		return errors.New("it names no interpreter")
	}
	if err := check(words[0], depth+1); err != nil {
		return fmt.Errorf("interpreter %w", err)
	}
	if strings.HasSuffix(line, "\r\n") {
		return errors.New("it ends with a carriage return, which is taken for a part of the interpreter's name")
	}
	if filepath.Base(words[0]) != "env" {
		return nil
	}
	args := slices.DeleteFunc(words[1:], func(w string) bool { return w == "-S" || strings.Contains(w, "=") })
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return nil
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		return fmt.Errorf("interpreter %w", err)
	}
	return nil
}

// machines are those whose programs run on one of another name, too.
var machines = map[string][]elf.Machine{
	"amd64": {elf.EM_X86_64, elf.EM_386},
	"arm64": {elf.EM_AARCH64, elf.EM_ARM},
	"386":   {elf.EM_386, elf.EM_X86_64},
	"arm":   {elf.EM_ARM, elf.EM_AARCH64},
}

// compiled looks at a program's machine and at its dynamic loader.
func compiled(f *os.File) error {
	if err := whole(f); err != nil {
		return err
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("a truncated or broken program, %w: %w", err, syscall.ENOEXEC)
	}
	if m := machines[runtime.GOARCH]; m != nil && !slices.Contains(m, e.Machine) && !otherFormats() {
		return fmt.Errorf("a program for another machine, %v: %w", e.Machine, syscall.ENOEXEC)
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("a truncated program: %w", err)
		}
		if _, err := os.Stat(strings.TrimRight(string(name), "\x00")); err != nil {
			return fmt.Errorf("its dynamic loader is missing, it was built for another system: %w", err)
		}
	}
	return nil
}

// formats are other formats that the kernel was told to execute (binfmt_misc).
var formats = "/proc/sys/fs/binfmt_misc"

// otherFormats reports whether there are such: then nobody else can tell.
func otherFormats() bool {
	list, _ := os.ReadDir(formats)
	return slices.ContainsFunc(list, func(e fs.DirEntry) bool { return e.Name() != "register" && e.Name() != "status" })
}
