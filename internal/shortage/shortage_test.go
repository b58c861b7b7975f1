package shortage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExplain: an error of the kernel's is explained once, whoever else does it, and stays what
// it is.
func TestExplain(t *testing.T) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprint(l.Cur)
	for errno, words := range map[syscall.Errno][]string{
		syscall.EMFILE:       {"too many open files (of this process", number, "LimitNOFILE=", "ulimit -n"},
		syscall.ENFILE:       {"fs.file-max"},
		syscall.ETOOMANYREFS: {"descriptors", number, "LimitNOFILE="},
		syscall.ENOMEM:       {"MemoryMax="},
	} {
		err := Explain(fmt.Errorf("worker: %w", &fs.PathError{Op: "open", Path: "/x", Err: errno}))
		err = Explain(fmt.Errorf("service: %w", Explain(err)))
		var path *fs.PathError
		if !Is(err) || !Is(errno) || !errors.Is(err, errno) || !errors.As(err, &path) {
			t.Errorf("%v is not %v any more", err, errno)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
		if !strings.HasPrefix(err.Error(), "service: worker: open /x: ") || strings.Count(err.Error(), words[len(words)-1]) != 1 {
			t.Error(err)
		}
	}
	for _, err := range []error{nil, os.ErrNotExist, syscall.EAGAIN, errors.New("something")} {
		if got := Explain(err); got != err || Is(err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}
