package drain

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestRoomOfFew: who may have few descriptors takes connections, too, until they are used up.
func TestRoomOfFew(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	for limit, want := range map[int]bool{2*free + 8: true, free + 3: false, free + 1: false} {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		got := roomForOne()
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("the next is %d, the limit %d: room %v", free, limit, got)
		}
	}
}
