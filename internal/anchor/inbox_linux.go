package anchor

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/sdnotify"
)

// note is what the anchor makes of a notification.
type note struct {
	sdnotify.Note
	mainPid int // what it says of MAINPID, or 0
}

func newNote(n sdnotify.Note) note {
	v, _ := n.Get("MAINPID")
	pid, err := strconv.ParseInt(v, 10, 32)
	if err != nil || pid < 0 {
		pid = 0
	}
	return note{n, int(pid)}
}

// strip closes the descriptors of a note that is to be kept for a while if there are more than
// one, which is of no use here: there are only so many.
func (n *note) strip() {
	if n.Descriptors() > 1 {
		n.Done()
		n.Take()
	}
}

// inbox delivers notifications to the anchor's loop.
type inbox struct {
	*sdnotify.Inbox
	notes chan note
	quit  chan struct{}
	done  chan struct{}
}

func newInbox(log *slog.Logger) (*inbox, error) {
	sd, err := sdnotify.NewInbox()
	if err != nil {
		return nil, err
	}
	return startInbox(sd, log), nil
}

func startInbox(sd *sdnotify.Inbox, log *slog.Logger) *inbox {
	in := &inbox{Inbox: sd}
	in.resume(log)
	return in
}

// resume begins to read, at the start or after halt. The notes come first.
func (in *inbox) resume(log *slog.Logger, notes ...note) {
	in.Unhalt()
	in.notes, in.quit, in.done = make(chan note), make(chan struct{}), make(chan struct{})
	go in.run(log, notes)
}

// halt ends the reading. What was read already goes to last; what comes later stays in the
// socket.
func (in *inbox) halt(last func(note)) {
	in.Halt()
	for {
		select {
		case n := <-in.notes:
			last(n)
		case <-in.done:
			return
		}
	}
}

// pick takes out what has arrived until now and is picked. The rest is delivered as it would have
// been.
func (in *inbox) pick(log *slog.Logger, picked func(note) bool) {
	var rest []note
	sort := func(n note) {
		if !picked(n) {
			n.strip()
			rest = append(rest, n)
		}
	}
	in.halt(sort)
	in.Each(func(n sdnotify.Note, err error) {
		if check(log, n, err) == nil {
			sort(newNote(n))
		}
	})
	in.resume(log, rest...)
}

// check tells of a note that did not arrive as it was sent. Its error is that of one that is of
// no use.
func check(log *slog.Logger, n sdnotify.Note, err error) error {
	switch {
	case errors.Is(err, sdnotify.ErrNoteTooLong):
		log.Warn("a notification is ignored", "from", n.Pid, "error", err)
	case errors.Is(err, sdnotify.ErrNoteLost):
		log.Warn("a notification has arrived in part", "from", n.Pid, "error", err)
		err = nil
	}
	return err
}

// fd is the socket's descriptor, good for as long as it is open.
func (in *inbox) fd() (fd int, err error) {
	rc, err := in.SyscallConn()
	if err == nil {
		err = rc.Control(func(n uintptr) { fd = int(n) })
	}
	return fd, err
}

func (in *inbox) run(log *slog.Logger, notes []note) {
	defer close(in.done)
	deliver := func(n note) bool {
		select {
		case in.notes <- n:
			return true
		case <-in.quit:
			n.Done()
			return false
		}
	}
	for i, n := range notes {
		if !deliver(n) {
			for _, n := range notes[i+1:] {
				n.Done()
			}
			return
		}
	}
	for {
		n, err := in.Read()
		switch err = check(log, n, err); {
		case errors.Is(err, sdnotify.ErrNoteTooLong):
			continue
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			log.Error("no notification is received any more", "error", err)
			return
		}
		if !deliver(newNote(n)) {
			return
		}
	}
}

func (in *inbox) close() {
	close(in.quit)
	in.Inbox.Close()
	<-in.done
}

// descendant reports whether a process descends from this one.
func descendant(pid int) bool { return launch.Descends(pid, os.Getpid()) }
