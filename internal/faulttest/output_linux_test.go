package faulttest_test

import (
	"os"

	"golang.org/x/sys/unix"
)

var outputRows = []row{
	{
		name: "output-closed", fault: "standard output and error are closed", costs: "what would be printed",
		start: func(s *service) { s.by("sh", "-c", `exec "$0" "$@" >&- 2>&-`) },
		begin: func(*service) func() { return func() {} },
	},
	{
		name: "output-nobody", fault: "nobody has the other end of standard output and error any more", costs: "what is printed meanwhile",
		start: (*service).piped,
		begin: func(s *service) func() { s.reader.Close(); return func() {} },
	},
	{
		name: "output-hangs", fault: "who has the other end does not read: a terminal after Ctrl-S, a log that hangs",
		costs: "nothing, up to 1000 records of the log; a program that prints has to wait",
		start: (*service).piped,
		begin: (*service).clog,
	},
}

// piped has the service print into a pipe, of which the test has the other end.
func (s *service) piped() {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr, s.reader = w, w, r
	s.t.Cleanup(func() { r.Close(); w.Close() })
}

// clog fills the pipe.
func (s *service) clog() (end func()) {
	s.t.Helper()
	// Not by a write that does not wait: that would be a flag of all who have this end.
	fd := int(s.cmd.Stdout.(*os.File).Fd())
	for room := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}; ; {
		switch n, err := unix.Poll(room, 0); {
		case err == unix.EINTR:
			continue
		case err != nil:
			s.t.Fatal(err)
		case n == 0:
			return func() {}
		}
		if _, err := unix.Write(fd, make([]byte, 4096)); err != nil { // a page, of which there was one
			s.t.Fatal(err)
		}
	}
}
