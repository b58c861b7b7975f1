// Package shortage says in words of what there is too little when the kernel refuses something,
// and where the limit is set.
package shortage

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Explain adds to an error of the kernel's of what there was too little in this process, and
// who can give it more. Other errors, and nil, stay as they are. Errors that are wrapped in it
// can still be found.
func Explain(err error) error {
	var already *explained
	if err == nil || errors.As(err, &already) {
		return err
	}
	for _, s := range shortages {
		if errors.Is(err, s.number) {
			return &explained{err, s.says()}
		}
	}
	return err
}

// Is reports whether an error is one of those that Explain explains: nobody has made a mistake,
// and later it may work.
func Is(err error) bool { return err != nil && Explain(err) != err || errors.As(err, new(*explained)) }

type explained struct {
	err error
	why string
}

func (e *explained) Error() string { return e.err.Error() + " (" + e.why + ")" }
func (e *explained) Unwrap() error { return e.err }

var shortages = []struct {
	number syscall.Errno
	says   func() string
}{
	{syscall.EMFILE, func() string {
		return fmt.Sprintf("%sto be raised by LimitNOFILE= or ulimit -n", limit("of this process the limit is %d, "))
	}},
	{syscall.ENFILE, func() string { return "of the whole machine, to be raised by fs.file-max" }},
	{syscall.ETOOMANYREFS, func() string {
		return fmt.Sprintf("descriptors that this user's processes send to one another, %sto be raised by LimitNOFILE= or ulimit -n", limit("at most %d, "))
	}},
	{syscall.ENOMEM, func() string {
		return "of this process, its control group (MemoryMax=, memory.max) or the machine"
	}},
}

// limit is how many descriptors this process may have, in a text.
func limit(format string) string {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return ""
	}
	return fmt.Sprintf(format, l.Cur)
}
