package upgrader

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// orphanGrace is how long what a failed process had started may take to end by
// itself before it is killed: its workers see their channel end and have nothing
// to finish. clearLimit bounds it all.
const (
	orphanGrace = 200 * time.Millisecond
	clearLimit  = 800 * time.Millisecond
)

// clearAttempt returns when nothing that the failed process had started is left:
// no process whose environment has the entry mark. What is left after the grace
// is killed. A process that runs as another user, or that was started with an
// environment of its own, is not found. Wards, and what is in their sessions, are
// spared.
func clearAttempt(mark string, wards []ward) {
	spared := map[int]bool{}
	for _, w := range wards {
		spared[w.proc.Pid] = true
	}
	begin := time.Now()
	var sig unix.Signal // none: just look
	// One that is just executing a program shows no environment for a moment, so that
	// one look does not tell.
	for none := 0; time.Since(begin) < clearLimit; {
		if none++; signalMarked(mark, sig, spared) > 0 {
			none = 0
		}
		if none == 2 {
			return
		}
		if time.Since(begin) > orphanGrace {
			sig = unix.SIGKILL
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// signalMarked sends sig to every process with that entry in its environment, and
// returns how many there are, but for the spared and what is in their sessions. It
// looks at all processes and not only at those that were orphaned to this one: only a
// subreaper has them.
func signalMarked(mark string, sig unix.Signal, spared map[int]bool) (n int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || !marked(pid, mark) {
			continue
		}
		if sid, err := unix.Getsid(pid); spared[pid] || err == nil && spared[sid] {
			continue // a ward need not lead a session
		}
		// The pid could be another process's by now, but not once it is held.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if marked(pid, mark) && unix.PidfdSendSignal(fd, sig, nil, 0) == nil {
			n++
		}
		unix.Close(fd)
	}
	return n
}

// marked looks at the environment that the process was executed with. It is empty
// for one that has ended.
func marked(pid int, mark string) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return bytes.HasPrefix(b, []byte(mark+"\x00")) || bytes.Contains(b, []byte("\x00"+mark+"\x00"))
}
