package handover_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is a process, too, that has many descriptors on their way.
const hoarderName = "hoarder"

func init() { mains[hoarderName] = hoarderMain }

// hoarderMain sends two messages of descriptors to itself, and reads them when its
// standard input ends.
func hoarderMain() {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	for range 2 {
		if err == nil {
			err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(make([]int, 253)...), nil, 0)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestTooManyInFlight: an ordinary user may have no more descriptors on their way than
// open in one process (unix(7), ETOOMANYREFS). As long as others of the same user have
// them all, a worker that ends goes on serving, and then its connections move.
func TestTooManyInFlight(t *testing.T) {
	const uid = 65533 // of nobody else
	s := startServiceBy(t, func(bin string) *exec.Cmd {
		return ordinary(t, uid, exec.Command("sh", "-c", `ulimit -n 300 && exec "$0"`, bin), bin)
	}, 1, "TEST_APP=plain")
	clients := keep(t, s.addr, 20)
	old := s.workers()[0]

	bin := filepath.Join(t.TempDir(), hoarderName)
	install(t, bin)
	hoarder := ordinary(t, uid, exec.Command(bin), bin)
	in, err := hoarder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	h := startCommand(t, hoarder)
	h.await(has("ready"))

	from := s.mark()
	if err := syscall.Kill(old, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{`msg="worker serves"`, "msg=draining"} {
		if _, err := s.waitFrom(from, has(what)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for i, c := range clients {
			if who, err := c.ask(); err != nil || who != strconv.Itoa(old) {
				t.Fatalf("connection %d: %q answered, not %d: %v", i, who, old, err)
			}
		}
	}
	in.Close()
	s.exits(from, strconv.Itoa(old))
	for i, c := range clients {
		if who, err := c.ask(); err != nil || who == strconv.Itoa(old) {
			t.Errorf("connection %d: %q answered: %v", i, who, err)
		}
	}
	for _, c := range clients {
		c.Close()
	}
	s.stop()
}
