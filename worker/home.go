package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/fault"
	homes "github.com/handover-go/handover/internal/home"
	"github.com/handover-go/handover/internal/wire"
)

// This file is about a worker whose parent has died. It serves on, reports where the next
// parent will find it, and drains when there will be none.

// DefaultGrace is how long a worker waits for another parent, if its parent has not said
// otherwise: more than it takes to start one, several times.
const DefaultGrace = 30 * time.Second

// comeAgain is how long a worker waits before it reports once more, to a parent that has
// died or does not want it.
const comeAgain = 100 * time.Millisecond

// home is where a worker reports, and what it takes there. Most of it belongs to listen.
type home struct {
	fd     int // 0: there is none
	crash  *os.File
	output map[string]*os.File // read ends of what it prints
	recipe string
	grace  time.Duration
	since  time.Time // without a parent; zero: there is one, or was one a moment ago
	stops  bool      // so does the service
}

func (h *home) close() {
	h.crash.Close() // of a nil *os.File does nothing
	for _, f := range h.output {
		f.Close()
	}
	if h.fd > 0 {
		syscall.Close(h.fd)
	}
}

// inheritedHome is what a parent has said for the time after its death.
func (w *Worker) inheritedHome() error {
	v, recipe, grace := os.Getenv(wire.EnvHome), os.Getenv(wire.EnvRecipe), os.Getenv(wire.EnvGrace)
	for _, name := range []string{wire.EnvHome, wire.EnvRecipe, wire.EnvGrace} {
		os.Unsetenv(name)
	}
	h := &w.home
	h.recipe, h.grace, h.output = recipe, DefaultGrace, map[string]*os.File{}
	if grace != "" {
		ms, err := strconv.ParseInt(grace, 10, 32)
		if err != nil || ms < 0 {
			return fmt.Errorf("%s=%q: not a number of milliseconds", wire.EnvGrace, grace)
		}
		h.grace = time.Duration(ms) * time.Millisecond
	}
	for i, entry := range strings.Fields(v) {
		name, number, named := strings.Cut(entry, "=")
		if !named {
			number = entry
		}
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 3 || named != (i > 0) {
			return fmt.Errorf("%s=%q: want NUMBER NAME=NUMBER …, descriptors from 3 on", wire.EnvHome, v)
		}
		syscall.CloseOnExec(fd)
		if !named {
			h.fd = fd
		} else {
			h.output[name] = os.NewFile(uintptr(fd), name)
		}
	}
	return nil
}

// mayComeHome reports whether there is any use in another parent: this worker serves, or
// drains and waits for somebody to let it go. Err is why the channel can't be read any more.
func (w *Worker) mayComeHome(err error) bool {
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
	w.mu.Lock()
	defer w.mu.Unlock()
	return ended && w.home.fd > 0 && w.going && !isClosed(w.mayExit)
}

// goesAlone reports whether others serve on when this worker drains without a parent: it was
// told to go, not because the service stops, or has not served yet, and they have a home which
// is kept.
func (w *Worker) goesAlone() bool {
	w.mu.Lock()
	going := w.going
	w.mu.Unlock()
	leaves := !going || isClosed(w.mayExit) && !w.home.stops
	return w.home.fd > 0 && leaves && homes.Kept(w.home.fd)
}

// comeHome reports, and waits until another parent has said something, which it returns. Of
// the errors only the end of the new channel leaves hope: that parent has died, too.
func (w *Worker) comeHome() (*wire.Conn, []byte, error) {
	h := &w.home
	if h.since.IsZero() {
		h.since = time.Now()
		w.alone.Store(true)
		w.log.Warn("the parent is gone: serving on until there is another one", "grace", h.grace)
	} else {
		time.Sleep(comeAgain)
	}
	fault.Point(fault.LeftReports)
	deadline := h.since.Add(h.grace)
	door, err := homes.OpenDoor(h.fd)
	if err != nil {
		return nil, nil, err
	}
	defer door.Close()
	conn, err := w.report(door, deadline)
	if err != nil {
		return nil, nil, err
	}
	w.conn.set(conn, func() {
		if isClosed(w.quit) { // the last word may have gone to the one before
			w.sayState(conn)
		}
	})
	w.mail.put(letter{v: w.post.Mail()}) // of what was under way nothing is known there
	w.changed()
	fault.Point(fault.LeftWaits)
	line, err := w.hearParent(door, conn, deadline)
	if err == nil {
		h.since = time.Time{}
		w.alone.Store(false)
		w.log.Info("there is another parent")
	}
	return conn, line, err
}

// report makes a channel and sends its other end home.
func (w *Worker) report(door *homes.Door, deadline time.Time) (*wire.Conn, error) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := wire.NewConn(ours)
	if err != nil {
		return nil, err
	}
	files := map[string]*os.File{homes.Channel: theirs}
	if w.home.crash != nil {
		files[homes.Crash] = w.home.crash
	}
	for name, f := range w.home.output {
		files[name] = f
	}
	err = door.Send(homes.Report{
		Group: w.state.Group, Slot: w.state.Slot, ID: w.state.ID, Generation: w.state.Generation, Recipe: w.home.recipe,
	}, files, deadline)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// errNobodyCame is why a worker drains that has waited for another parent.
var errNobodyCame = errors.New("no other parent has come")

// hearParent is conn.Read, until it is known that nothing will come.
func (w *Worker) hearParent(door *homes.Door, conn *wire.Conn, deadline time.Time) ([]byte, error) {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	abandoned := false
	go func() {
		defer close(ended)
		if abandoned = door.Abandoned(); abandoned {
			_ = conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed one
		}
	}()
	line, err := conn.Read()
	door.Leave()
	<-ended
	switch {
	case abandoned && err != nil:
		return nil, homes.ErrNobody
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errNobodyCame
	case err != nil:
		return nil, err
	}
	return line, conn.SetReadDeadline(time.Time{})
}
