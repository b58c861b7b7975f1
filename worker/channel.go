package worker

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/wire"
)

// changed has the state sent, without ever waiting for a parent that does not
// read: states that follow one another quickly are sent as one.
func (w *Worker) changed() {
	if !w.HasParent() {
		return
	}
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// speak sends the state whenever it has changed, and at the end once more, and the
// messages before it: nobody else sends, so that the last word is the last. An error
// means that the parent is gone: listen acts on that.
func (w *Worker) speak() {
	beats, stop := w.heartbeat()
	defer stop()
	for last := false; !last; {
		select {
		case <-w.mail.more:
			w.sendMail()
			continue
		case <-w.dirty:
		case <-beats:
		case <-w.quit:
			last = true
		}
		w.sendMail()
		w.sayState(w.conn.get())
	}
}

func (w *Worker) sayState(conn *wire.Conn) {
	w.mu.Lock()
	s := w.stateLocked()
	w.mu.Unlock()
	_ = conn.Send(s)
}

func (w *Worker) stateLocked() wire.State {
	s := w.state
	s.Active, s.Served, s.Cut = 0, int(w.received.Load()), 0
	s.Requests = s.Served
	s.Idle, s.Hijacked, s.MovedIn, s.MovedOut = 0, 0, 0, 0
	for _, d := range w.drainers {
		if s.Phase == wire.PhaseDraining && !isClosed(d.Quiet()) {
			s.Phase = w.before // it accepts still
		}
		open, idle := d.Active()
		in, out := d.Moved()
		s.Active += open
		s.Idle += idle
		s.Hijacked += d.Hijacked()
		s.MovedIn += in
		s.MovedOut += out
		s.Served += d.Served()
		s.Requests += d.Requests()
		s.Cut += d.Report().Cut
		if s.Phase == wire.PhaseDraining {
			for _, c := range d.Open(wire.MaxOpen - len(s.Open)) {
				s.Open = append(s.Open, wire.OpenConn{Peer: c.Peer, State: c.State, AgeMS: c.Age.Milliseconds()})
			}
		}
	}
	return s
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// listen does what the parent says. The end of the channel means that there is no parent
// any more, for which another one may come; garbage, that there is none to rely on.
func (w *Worker) listen() {
	for {
		conn := w.conn.get()
		line, err := conn.Read()
		for w.mayComeHome(err) {
			conn, line, err = w.comeHome()
		}
		if err == nil {
			err = w.obey(conn, line)
		}
		if err == nil {
			continue
		}
		if w.exiting() {
			return
		}
		w.log.Warn("the parent is gone: draining", "error", err)
		w.post.Close(ErrNoParent)
		move := wire.MoveTake // like all others, who drain, too: nothing may stay queued
		if w.goesAlone() {
			move = wire.MoveGive // to the others, who serve on
		}
		w.release()
		w.moves(move)
		w.beginDrain(0, false)
		return
	}
}

func (w *Worker) exiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.Phase == wire.PhaseExiting
}

// obey carries out one message. Unknown commands are for later versions.
func (w *Worker) obey(conn *wire.Conn, line []byte) error {
	cmd, err := wire.Cmd(line)
	var other *wire.BadMessageError
	if errors.As(err, &other) && other.JSON {
		err = nil // no object, hence no message of ours
	}
	if err != nil {
		return err
	}
	switch cmd {
	case wire.CmdMessage:
		var m wire.Message
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		files, err := conn.TakeFiles(m.Files)
		if err != nil {
			return err
		}
		w.post.Receive(m, files)
	case wire.CmdSent:
		var r wire.Result
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		w.post.Result(r)
	case wire.CmdService:
		var sv wire.Service
		if err := json.Unmarshal(line, &sv); err != nil {
			return err
		}
		w.hearService(sv)
	}
	if cmd == wire.CmdConnect {
		var c wire.Connect
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		files, err := conn.TakeFiles(1)
		if err != nil {
			return err
		}
		w.deliver(c.Socket, files[0])
	}
	if conn.Pending() > 0 && conn.Buffered() == 0 {
		return errors.New("descriptors that no message announced")
	}
	switch cmd {
	case wire.CmdWho:
		var who wire.Who
		if err := json.Unmarshal(line, &who); err != nil {
			return err
		}
		if who.Mail {
			mail := w.post.Mail()
			mail.N = who.N
			w.mail.put(letter{v: mail})
		}
		w.changed()
	case wire.CmdGo:
		w.goAhead()
	case wire.CmdHold:
		w.heard()
	case wire.CmdForgive:
		w.forgiven()
	case wire.CmdDrain:
		var d wire.Drain
		if err := json.Unmarshal(line, &d); err != nil {
			return err
		}
		w.heard()
		w.home.stops = d.Stop
		if d.Exit {
			w.release()
		}
		w.beginDrain(time.Duration(d.TimeoutMS)*time.Millisecond, d.Stop)
	case wire.CmdStopping:
		w.stopping()
	case wire.CmdMoves:
		var m wire.Moves
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		w.moves(m.Do)
	case wire.CmdExit:
		w.release()
	}
	return nil
}

// deliver serves a connection that the parent has made. One that can't be served is
// closed, which the parent notices.
func (w *Worker) deliver(socket string, f *os.File) {
	defer f.Close()
	w.mu.Lock()
	var d *drain.Drainer
	if s := w.sockets[socket]; s != nil {
		d = s.drainer
	}
	w.mu.Unlock()
	if d == nil {
		w.log.Warn("a connection from the parent can't be served: the app serves that socket in its own way, or does not yet", "socket", socket)
		return
	}
	c, err := net.FileConn(f)
	if err == nil {
		if err = d.Deliver(c); err == nil {
			return
		}
		c.Close()
	}
	w.log.Warn("a connection from the parent can't be served", "socket", socket, "error", err)
}
