package faulttest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// program is arguments that have a program serve, which has its own ways.
func program(way string) func(*service) []string {
	return func(s *service) []string {
		return []string{"--ready", "http:/", "--", "bash", "-c", way, self, static, s.count()}
	}
}

// count is where a flooder writes how many bytes were taken from it.
func (s *service) count() string { return filepath.Join(s.dir, "count") }

var workerRows = []row{
	{
		name: "worker-forks", fault: "workers leave children that hold their socket and their channel open", plain: true,
		costs: "what they hold, until the service stops, which ends them",
		more:  program(`sleep 3600 & exec "$1"`), children: "sleep",
		begin: func(*service) func() { return func() {} },
	},
	{
		name: "worker-deaf", fault: "workers never read their channel, and one of them writes to all", plain: true, long: true,
		costs: "its messages that are too many: it hears so",
		more:  program(`case $HANDOVER_WORKER in web/1/*) exec -a ` + flooderName + ` "$0" messages "$2" & esac; exec "$1"`), children: own,
		begin: func(s *service) func() { return s.flooded(32 << 20) },
	},
	{
		name: "worker-floods", fault: "a worker floods its channel with what nobody understands", plain: true, long: true,
		costs: "time of the parent's",
		more:  program(`case $HANDOVER_WORKER in web/1/*) exec -a ` + flooderName + ` "$0" noise "$2" & esac; exec "$1"`), children: own,
		begin: func(s *service) func() { return s.flooded(8 << 20) }, // of lines that are short
	},
	{
		name: "worker-endless-line", fault: "a worker sends a line without an end", plain: true,
		costs: "its channel, which is closed: it serves on, and can say no more",
		more:  program(`case $HANDOVER_WORKER in web/1/*) exec -a ` + flooderName + ` "$0" line & esac; exec "$1"`), children: own,
		begin: func(s *service) func() { return func() {} },
		says:  []saying{{byLog, "program wrote what is no message to its channel, which is closed…line too long: more than the cap of 1048576 bytes and no newline"}},
	},
	{
		name: "worker-stopped", fault: "a worker is stopped (SIGSTOP), and what is for it is not read",
		costs: "what it has in its hands, until it is taken for hung",
		// It has to be longer than kill stops its victim for, to look at what it has.
		more: func(*service) []string { return []string{"--heartbeat", "200ms", "--hung-after", "5s"} },
		begin: func(s *service) func() {
			s.end()
			pid := s.serving()[0]
			if err := procs.Freeze(s.t.Context(), pid); err != nil {
				s.t.Fatal(err)
			}
			s.until(func() string {
				if syscall.Kill(pid, 0) == nil {
					return "it is not taken for hung"
				}
				return ""
			})
			s.settles()
			s.begin()
			return func() {}
		},
		says: []saying{{byStatus, "hung"}},
	},
}

const flooderName = "flooder"

func init() { programs[flooderName] = flooderMain }

// flooderMain writes to the channel, as fast as it is read. It does not read it, but that a
// message of its own is refused it wants to hear once.
func flooderMain() {
	fd, _ := strconv.Atoi(os.Getenv("HANDOVER_CHANNEL_FD"))
	var text string
	heard := os.Args[1] != "messages"
	said := make([]byte, 1<<16)
	total, told := 0, 0
	switch os.Args[1] {
	case "messages":
		text = fmt.Sprintf(`{"to":"group:web","type":"news","id":1,"data":"%s"}`+"\n", strings.Repeat("x", 1000))
	case "noise":
		text = `{"cmd":"NODE_HANDOVER_NOTHING","v":7}` + "\n" + `[1,2,3]` + "\n" + `{"cmd":"other"}` + "\n"
	case "line":
		text = strings.Repeat("x", 1<<16)
	}
	for b := []byte(text); ; {
		if !heard {
			n, _, _, _, _ := unix.Recvmsg(fd, said, nil, unix.MSG_DONTWAIT)
			heard = n > 0 && bytes.Contains(said[:n], []byte(`"why":"refused"`))
		}
		if len(os.Args) > 2 && heard && total-told >= 1<<20 {
			told = total
			_ = os.WriteFile(os.Args[2], strconv.AppendInt(nil, int64(total), 10), 0o600)
		}
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		case err != nil:
			return
		default:
			total += n
			if b = b[n:]; len(b) == 0 {
				b = []byte(text)
			}
		}
	}
}

// flooded waits until that many bytes have come. When they have come once more, to the next
// parent, that has not kept them.
func (s *service) flooded(n int) (end func()) {
	s.t.Helper()
	s.flood(n)
	before := s.memory()
	return func() {
		s.t.Helper()
		s.flood(n)
		now := s.memory()
		s.t.Logf("the parent's memory was %d kB, and is %d kB", before>>10, now>>10)
		if now > 3*before {
			s.t.Error("it has kept what has come")
		}
	}
}

func (s *service) flood(enough int) {
	s.t.Helper()
	_ = os.Remove(s.count())
	s.until(func() string {
		b, _ := os.ReadFile(s.count())
		if n, _ := strconv.Atoi(string(b)); n < enough {
			return fmt.Sprintf("of %d bytes, %d have come", enough, n)
		}
		return ""
	})
}

// memory is the parent's.
func (s *service) memory() int64 {
	s.t.Helper()
	n, err := procs.Memory(s.parent())
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
