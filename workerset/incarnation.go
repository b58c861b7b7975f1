package workerset

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/excerpt"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// incarnation is one worker process, from the wish to have it to its end. All of
// it belongs to the loop, except that its two goroutines use conn and proc, which
// do not change once they are set.
type incarnation struct {
	group      *group
	as         Group // what its group was when it was started, or taken over
	key        int   // unique in the set
	id, slot   int   // id is unique in the group's generation
	generation int
	recipe     string // that of its generation; of programs only
	adopted    bool   // from another parent
	stale      bool   // of an older generation or from before a rolling restart

	state    lifecycle.State
	since    time.Time
	deadline time.Time // zero: none; it belongs to state, so none is ever stale
	readyAt  time.Time // zero: it has not been ready

	dismissed  bool      // its end was decided here
	let        string    // and why; see Worker.Let
	drainAt    time.Time // since when it drains
	released   bool      // was told that it may exit
	terminated bool      // was sent SIGTERM
	killed     bool      // was sent SIGKILL

	limits    lifecycle.Limits // its own
	memory    int64            // how much it had when that was looked at last; 0: it was not
	unweighed bool             // that could not be found out
	worn      string           // the limit that it has reached, while it is replaced for that
	needless  bool             // came to nothing, and the one that it was to replace goes on

	told  wire.Move // its part in the moving of connections
	knows int       // which of Set.said it was told

	nth            int        // of its causes, the last that was dealt with
	paid           bool       // its replacement was taken from the group's budget, or is owed
	forgiven       wire.Cause // why it is degraded
	forgivenReason string
	cause          wire.Cause // why it ends, when that was not decided here
	reason         string
	blamedAt       time.Time
	report         wire.State // what it said last
	words          int        // how often it has said something
	handled        int        // messages that it was done with
	exit           string     // how its process ended

	program  bool // it executes a program with a path of its own: foreign until it greets
	greeted  bool // it has said its state on the channel
	asked    bool // foreign: it was asked to drain, or does so by itself
	showed   bool // foreign: it has said what only one says that has served
	online   bool // foreign: a worker of Node's cluster
	offered  bool // foreign: it has taken all sockets that it was offered
	handouts handouts
	talks    bool         // foreign: it has the channel of Node, or has sent a message to somebody
	calls    map[int]call // of its messages under way, by number
	lastCall int

	said     bool      // it has said on its channel that it is ready
	notified bool      // it has said READY=1
	probed   bool      // it has answered over HTTP
	probing  func()    // ends the probe
	unready  error     // why it was no answer, the last time
	began    time.Time // its process did
	text     string    // its STATUS
	errno    string    // its ERRNO

	strangers bool // others than those who may have notified of something

	beats     bool // it has begun to say that it lives
	beat      time.Time
	hungAfter time.Duration

	announced announced
	listening map[string]bool // the sockets of which that was told

	inbox   *sdnotify.Inbox
	noting  chan struct{} // closed when the goroutine that reads the inbox has ended
	streams []*stream
	output  excerpt.Excerpt
	crash   *os.File // what the Go runtime writes when it dies
	dump    string   // and has written

	conn    *wire.Conn   // nil for one that was adopted without
	out     *wire.Outbox // of conn
	proc    *launch.Process
	reader  chan struct{}  // closed when the goroutine that reads has ended
	deaf    bool           // its channel has ended, or was given up
	heard   bool           // all that it has ever said was read
	dead    *launch.Status // its process has ended
	settle  time.Time      // when not to wait for the other of these two any more; zero: not waiting
	torn    int            // which of the next lines, from 1, another parent may have begun to read; 0: none
	residue *wire.Residue  // while the set is given away
	rest    []byte         // then: what is not out of a line to it
}

func (in *incarnation) name() string { return fmt.Sprintf("%s/%d", in.group.Name, in.slot) }

// logOf is for what there is to say about a worker.
func (s *Set) logOf(in *incarnation) *slog.Logger {
	return s.log.With("worker", in.name(), "id", in.id, "pid", in.pid(), "worker_generation", in.generation)
}

func (in *incarnation) pid() int {
	if in.proc == nil {
		return 0
	}
	return in.proc.Pid
}

// foreign reports whether it is a program that knows nothing of this package.
func (in *incarnation) foreign() bool { return in.program && !in.greeted }

// silent reports whether it could say on its channel that it does not accept any more,
// and has not. A foreign one can't.
func (in *incarnation) silent() bool {
	if in.foreign() || in.conn == nil || in.deaf {
		return false
	}
	switch in.report.Phase {
	case wire.PhaseDraining, wire.PhaseDrained, wire.PhaseExiting:
		return false
	}
	return true
}

// hasServed reports whether it is known to have served somebody.
func (in *incarnation) hasServed() bool {
	return in.showed || in.report.Served+in.report.MovedIn+in.handled > 0
}

// follow starts the goroutines that watch in's channel, its notifications, its
// output and its process.
func (s *Set) follow(in *incarnation) {
	if in.conn != nil {
		s.read(in)
	}
	if in.inbox != nil {
		s.readNotes(in)
	}
	in.output.Size = outputKept
	for _, st := range in.streams {
		s.pass(in, st)
	}
	s.wg.Go(func() {
		s.send(event{in: in, died: true, status: in.proc.Wait()})
	})
}

// read starts the goroutine that reads in's channel, until it ends or is halted.
func (s *Set) read(in *incarnation) {
	done := make(chan struct{})
	in.reader = done
	s.wg.Go(func() {
		defer close(done)
		for {
			line, err := in.conn.Read()
			if err == wire.ErrHalted {
				return
			}
			ev := event{in: in, lost: err}
			if err == nil {
				ev.line = slices.Clone(line)
				ev.files, ev.lost = in.files(line)
			}
			if !s.send(ev) {
				closeFiles(ev.files)
				return
			}
			if ev.lost != nil {
				return
			}
		}
	})
}

// files are the descriptors that a line announces, or that came with one that can't be
// read. Only with more lines to come may there be others.
func (in *incarnation) files(line []byte) (files []*os.File, err error) {
	if in.conn.Pending() == 0 {
		return nil, nil
	}
	n := filesWith(line)
	if !json.Valid(line) { // the half of another one may stand before it
		if in.conn.Buffered() > 0 {
			return nil, fmt.Errorf("%d descriptors with one of two lines, and one can't be read", in.conn.Pending())
		}
		n = in.conn.Pending()
	}
	if n > 0 {
		if files, err = in.conn.TakeFiles(n); err != nil {
			return nil, err
		}
	}
	if n := in.conn.Pending(); n > 0 && in.conn.Buffered() == 0 {
		closeFiles(files)
		return nil, fmt.Errorf("%d descriptors that no message announced", n)
	}
	return files, nil
}

// pass starts the goroutine that passes on what in prints, until the pipe ends or
// is halted.
func (s *Set) pass(in *incarnation, st *stream) {
	st.saw, st.put = &in.output, s.putter(in, st.name)
	st.begin()
	s.wg.Go(st.run)
}

// send gives an event to the loop; false when there is no loop any more.
func (s *Set) send(ev event) bool {
	select {
	case s.events <- ev:
		return true
	case <-s.quit:
		return false
	}
}

// close gives up everything of an incarnation. Its process goes on, if it has not
// ended.
func (in *incarnation) close() {
	if in.residue != nil {
		in.residue.Close()
	}
	if in.probing != nil {
		in.probing()
	}
	if in.conn != nil {
		in.conn.Close()
	}
	if in.inbox != nil {
		in.inbox.Close()
	}
	for _, st := range in.streams {
		st.close()
	}
	in.crash.Close() // of a nil *os.File does nothing
	if in.proc != nil {
		in.proc.Close()
	}
}

// tell sends one command without waiting. A worker that does not read, or that is
// gone, is found out by its deadlines.
func (in *incarnation) tell(v any) {
	if in.out != nil {
		_ = in.out.Urge(v)
	}
}

// connect makes conn in's channel, on which a line may be half out.
func (s *Set) connectTo(in *incarnation, conn *wire.Conn, rest []byte) {
	in.conn = conn
	in.out = wire.NewOutbox(conn, rest, s.wg.Go, func() { s.send(event{in: in, room: true}) })
}

// signal sends one. That a process has ended is no fault.
func (s *Set) signal(in *incarnation, sig syscall.Signal) {
	if in.proc == nil {
		return
	}
	if err := in.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.logOf(in).Error("worker can't be sent a signal", "signal", sig.String(), "error", err)
		s.announce(in, Event{Kind: EventError, Cause: "signal not sent", Reason: fmt.Sprintf("%v: %v", sig, err)})
	}
}

// endChannel makes reading end where the channel's content ends now (shutdown(2)).
func (in *incarnation) endChannel() {
	if rc, err := in.conn.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
	}
}

// dupFile is a copy of a descriptor to give away.
func dupFile(c syscall.Conn, name string) (*os.File, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	if err := rc.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, derr
	}
	return os.NewFile(uintptr(fd), name), nil
}

// identity is how a descriptor's name says whose it is:
// GROUP/SLOT/ID/GENERATION/PID.
func (in *incarnation) identity() string {
	return fmt.Sprintf("%s/%d/%d/%d/%d", in.group.Name, in.slot, in.id, in.generation, in.pid())
}

func parseIdentity(s string) (group string, n [4]int, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 5 || parts[0] == "" {
		return "", n, fmt.Errorf("%q is not GROUP/SLOT/ID/GENERATION/PID", s)
	}
	for i := range n {
		if n[i], err = strconv.Atoi(parts[i+1]); err != nil || n[i] < 1 {
			return "", n, fmt.Errorf("%q: %q is not a positive number", s, parts[i+1])
		}
	}
	return parts[0], n, nil
}
