// Package image is about programs' files: which build one is, whether the one that would be
// executed now is still the one that runs, and private copies of that, which can be executed
// when its file is another by then, or gone.
//
// A descriptor of the file would not do for that: one who overwrites the file in place
// changes what it executes, as soon as no process runs it any more.
package image

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// self is the program that runs here, also when its file has another name by now (proc(5)).
const self = "/proc/self/exe"

// Copy returns a copy of the program that runs in this process. It has no name, is gone
// with its last descriptor, and can be executed by Path. It is in memory, as a sealed
// memfd, which counts as this process's; where the kernel does not let these be executed
// (vm.memfd_noexec, Linux 6.3) it is on disk.
func Copy() (*os.File, error) {
	src, err := os.Open(self)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var errs []error
	for _, place := range places() {
		f, err := place(src)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("copy the program that runs: %w", errors.Join(errs...))
}

// Path is where a process of this user finds an open file, as long as this one has it.
func Path(f *os.File) (string, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return "", err
	}
	path := ""
	err = rc.Control(func(fd uintptr) { path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd) })
	return path, err
}

// Reopen opens the file anew, to be read.
func Reopen(f *os.File) (*os.File, error) {
	path, err := Path(f)
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// Runs reports whether a file is the one that runs in this process.
func Runs(path string) bool {
	own, err := os.Stat(self)
	if err != nil {
		return false
	}
	st, err := os.Stat(path)
	return err == nil && os.SameFile(own, st)
}

// fill copies all of src, from its start.
func fill(dst io.Writer, src *os.File) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.NewSectionReader(src, 0, st.Size()))
	return err
}
