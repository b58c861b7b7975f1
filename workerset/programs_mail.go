package workerset

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
)

// This file is about messages between workers for programs that know nothing of package
// message: in Node, process.send({to, type, data}) and process.on('message', …).

// call is a message that a program has sent, as far as its result needs it.
type call struct {
	To   string          `json:"to"`
	Type string          `json:"type"`
	ID   json.RawMessage `json:"id,omitempty"`
}

// programResult is what a program hears of its message: an answer, if it has an ID, or
// that it was not handled.
type programResult struct {
	Type  string          `json:"type"` // "answer" or "undelivered"
	ID    json.RawMessage `json:"id,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
	To    string          `json:"to,omitempty"`
	Of    string          `json:"of,omitempty"` // the message's type
	Why   wire.Why        `json:"why,omitempty"`
	Error string          `json:"error,omitempty"`
}

// programMessage is what a program gets.
type programMessage struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data,omitempty"`
	From string          `json:"from"` // "parent", or as "web/1"
}

// programSays takes in a message that is the application's own. It owns file, which came
// with it and is a kind of what Node makes of it, such as wire.NodeSocket.
func (s *Set) programSays(in *incarnation, msg json.RawMessage, file *os.File, kind string) {
	var m struct {
		To   string          `json:"to"`
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
		ID   json.RawMessage `json:"id"`
	}
	if json.Unmarshal(msg, &m) != nil || m.To == "" {
		s.logOf(in).Debug("a program says what nobody here asked for", "bytes", len(msg), "handle", kind)
		file.Close() // of a nil *os.File does nothing
		return
	}
	in.talks = true
	in.lastCall++
	if in.calls == nil {
		in.calls = map[int]call{}
	}
	c := call{To: m.To, Type: m.Type, ID: m.ID}
	var files []*os.File
	if file != nil {
		files = []*os.File{file}
	}
	refuse := func(why wire.Why, text string) {
		closeFiles(files)
		s.tellProgram(in, c.result(wire.Result{Why: why, Text: text}))
	}
	to, err := parseTo(m.To)
	if err != nil {
		refuse(wire.WhyAddress, err.Error())
		return
	}
	data, err := json.Marshal(m.Data) // as long as it will be
	switch {
	case m.Type == "":
		err = errors.New("it has no type")
	case err == nil && len(data) > message.MaxData:
		err = fmt.Errorf("its data has %d bytes, the most is %d", len(data), message.MaxData)
	}
	if err != nil {
		refuse(wire.WhyRefused, err.Error())
		return
	}
	if m.Data == nil {
		data = nil
	}
	// It has to be known to the router, and may be new.
	p := router.Peer(in.key)
	s.post.Put(p, in.who(), in.phase())
	id, err := s.post.Post(p, wire.Message{N: in.lastCall, To: to, Type: m.Type, Data: data, Files: len(files)})
	if err != nil { // it does not know of bounds
		refuse(wire.WhyRefused, err.Error())
		return
	}
	in.calls[in.lastCall] = c
	s.post.keep(id, parcels{files: files, ours: true})
}

// parseTo reads "parent", "all", "group:NAME", "any:NAME" and "NAME/SLOT".
func parseTo(s string) (wire.Address, error) {
	kind, name, ok := strings.Cut(s, ":")
	switch {
	case s == "parent":
		return wire.Address{To: wire.ToParent}, nil
	case s == "all":
		return wire.Address{To: wire.ToAll}, nil
	case ok && kind == "group" && name != "":
		return wire.Address{To: wire.ToGroup, Group: name}, nil
	case ok && kind == "any" && name != "":
		return wire.Address{To: wire.ToAny, Group: name}, nil
	}
	group, slot, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(slot)
	if !ok || err != nil || n < 1 || group == "" {
		return wire.Address{}, fmt.Errorf(`%.100q is no address: use "parent", "all", "group:NAME", "any:NAME" or "NAME/SLOT"`, s)
	}
	return wire.Address{To: wire.ToSlot, Group: group, Slot: n}, nil
}

// result is what the program hears, or nil.
func (c call) result(r wire.Result) any {
	switch {
	case r.Why != "":
		return programResult{Type: "undelivered", ID: c.ID, To: c.To, Of: c.Type, Why: r.Why, Error: r.Text}
	case len(c.ID) > 0:
		return programResult{Type: "answer", ID: c.ID, Data: r.Data}
	}
	return nil
}

// tellProgram sends what there is to be said now or never: of a program that does not
// read while it writes nothing is kept.
func (s *Set) tellProgram(in *incarnation, v any) {
	if in.out.Put(v) != nil {
		s.logOf(in).Debug("a program can't be told what became of its message")
	}
}

// deliverToProgram is deliverTo for a program. What it has been sent counts as handled,
// with a file when it has acknowledged that.
func (s *Set) deliverToProgram(in *incarnation) {
	p := router.Peer(in.key)
	for {
		it, ok := s.post.Next(p)
		if !ok {
			return
		}
		var err error
		switch {
		case it.Result != nil:
			if v := in.calls[it.Result.N].result(*it.Result); v != nil {
				err = in.out.Put(v)
			}
			if !errors.Is(err, wire.ErrFull) {
				delete(in.calls, it.Result.N)
			}
		case it.Message.Files == 0:
			err = in.out.Put(messageTo(it.Message))
		case in.handouts.busy():
			return // until it has acknowledged the one before
		default:
			err = s.sendFile(in, it)
		}
		switch {
		case err == nil && it.Message != nil && it.Message.Files == 0:
			s.post.Took(p)
			s.post.Done(p, wire.Result{Cmd: wire.CmdDone, N: it.Message.N})
		case err == nil && it.Message != nil:
			s.post.Took(p)
			in.handouts.parcel = it.Message.N
		case err == nil:
			s.post.Took(p)
		case errors.Is(err, wire.ErrFull), errors.Is(err, wire.ErrHalted), errors.Is(err, wire.ErrBroken), wire.Gone(err):
			return
		default:
			s.post.Refuse(p, err.Error())
		}
	}
}

func messageTo(m *wire.Message) programMessage {
	from := "parent"
	if m.From.Group != "" {
		from = fmt.Sprintf("%s/%d", m.From.Group, m.From.Slot)
	}
	return programMessage{Type: m.Type, Data: m.Data, From: from}
}

// sendFile sends a message with a file, of which Node makes what it is.
func (s *Set) sendFile(in *incarnation, it router.Item) error {
	files, err := s.filesOf(it)
	if err != nil {
		return err
	}
	if len(files) > 1 {
		return fmt.Errorf("%d files: a program takes one", len(files))
	}
	h := wire.NodeHandle{Cmd: wire.CmdNodeHandle}
	rc, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	if cerr := rc.Control(func(fd uintptr) { h.Type, h.DgramType, err = nodeKind(int(fd)) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if h.Msg, err = json.Marshal(messageTo(it.Message)); err != nil {
		return err
	}
	return in.out.Put(h, files[0])
}

// nodeKind is what Node makes of a socket, which it expects not to block.
func nodeKind(fd int) (kind, dgram string, err error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", "", errors.New("only sockets can be sent to a program")
	}
	listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	sa, _ := unix.Getsockname(fd)
	switch _, local := sa.(*unix.SockaddrUnix); {
	case typ == unix.SOCK_STREAM && listens != 0:
		kind = wire.NodeServer
	case typ == unix.SOCK_STREAM:
		kind = wire.NodeSocket
	case typ == unix.SOCK_DGRAM && !local:
		kind, dgram = wire.NodeDatagrams, "udp6"
		if _, v4 := sa.(*unix.SockaddrInet4); v4 {
			dgram = "udp4"
		}
	default:
		return "", "", errors.New("a socket of this kind can't be sent to a program: only streams and udp can")
	}
	return kind, dgram, unix.SetNonblock(fd, true)
}

// callsLost is for a parent that goes on after another one: of a program's messages under
// way nothing is known.
func (s *Set) callsLost(in *incarnation) {
	s.post.Mail(router.Peer(in.key), wire.Mail{})
	for _, n := range slices.Sorted(maps.Keys(in.calls)) {
		s.tellProgram(in, in.calls[n].result(wire.Result{Why: wire.WhyLost}))
	}
	clear(in.calls)
}

// busy: a descriptor is on its way to the program, or waits.
func (h *handouts) busy() bool { return len(h.queue) > 0 || h.flying || h.parcel != 0 }

// parcelArrived ends a message whose file the program has, or does not get.
func (s *Set) parcelArrived(in *incarnation, ok bool) {
	h, p := &in.handouts, router.Peer(in.key)
	r := wire.Result{Cmd: wire.CmdDone, N: h.parcel}
	switch h.nacks++; {
	case ok:
		s.post.Done(p, r)
	case h.nacks > maxNacks:
		r.Why, r.Text = wire.WhyHandler, "the program says that the file has not arrived"
		s.post.Done(p, r)
	default:
		s.post.Again(p, h.parcel)
		h.parcel = 0
		return
	}
	h.parcel, h.nacks = 0, 0
	s.post.Wake(p)
}
