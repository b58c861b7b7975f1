package faulttest_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// program is arguments that have a program serve, which has its own ways.
func program(way string) func(*service) []string {
	return func(*service) []string {
		return []string{"--ready", "http:/", "--", "bash", "-c", way, self, static}
	}
}

var workerRows = []row{
	{
		name: "worker-forks", fault: "workers leave children that hold their socket and their channel open", plain: true,
		costs: "what they hold, until the service stops, which ends them",
		more:  program(`sleep 3600 & exec "$1"`), children: "sleep",
		begin: func(*service) func() { return func() {} },
	},
	{
		name: "worker-deaf", fault: "workers never read their channel, and one of them writes to all", plain: true, long: true,
		costs: "the messages to them that do not fit any more: their sender hears so",
		more:  program(`case $HANDOVER_WORKER in web/1/*) exec -a ` + flooderName + ` "$0" messages & esac; exec "$1"`), children: own,
		begin: (*service).flooded,
	},
	{
		name: "worker-floods", fault: "a worker floods its channel with what nobody understands", plain: true, long: true,
		costs: "time of the parent's",
		more:  program(`case $HANDOVER_WORKER in web/1/*) exec -a ` + flooderName + ` "$0" noise & esac; exec "$1"`), children: own,
		begin: (*service).flooded,
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
		more:  func(*service) []string { return []string{"--heartbeat", "200ms", "--hung-after", "1s"} },
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

// flooderMain writes to the channel, as fast as it is read, and never reads it.
func flooderMain() {
	fd, _ := strconv.Atoi(os.Getenv("HANDOVER_CHANNEL_FD"))
	var text string
	switch os.Args[1] {
	case "messages":
		text = fmt.Sprintf(`{"to":"group:web","type":"news","id":1,"data":"%s"}`+"\n", strings.Repeat("x", 1000))
	case "noise":
		text = `{"cmd":"NODE_HANDOVER_NOTHING","v":7}` + "\n" + `[1,2,3]` + "\n" + `{"cmd":"other"}` + "\n"
	case "line":
		text = strings.Repeat("x", 1<<16)
	}
	for b := []byte(text); ; {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		case err != nil:
			return
		default:
			if b = b[n:]; len(b) == 0 {
				b = []byte(text)
			}
		}
	}
}

// flooded waits until a lot has come.
func (s *service) flooded() (end func()) {
	s.t.Helper()
	<-time.After(time.Second)
	return func() {}
}
