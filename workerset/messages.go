package workerset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
)

// This file carries messages between the workers' channels, this process's endpoint and
// the router, which decides where they go.

// post is a set's exchange of messages. All of it but in, poke and said belongs to the
// loop.
type post struct {
	*router.Router
	endpoint *message.Endpoint
	files    map[int]parcels // by letter
	counts   map[string]int  // of the groups, as the router knows them

	poke chan struct{} // has room for one: something was said
	mu   sync.Mutex
	said []said
}

// parcels are the files of a letter.
type parcels struct {
	files []*os.File
	ours  bool // to be closed when the letter has ended
}

// said is what this process's endpoint gives to the loop: a message, or that it is done
// with one, or that it gives it back.
type said struct {
	message *wire.Message
	files   []*os.File
	done    *wire.Result
	again   int
}

func newPost() *post {
	p := &post{Router: router.New(), files: map[int]parcels{}, poke: make(chan struct{}, 1)}
	p.NumbersFrom(firstNumber())
	p.endpoint = message.New((*parentLink)(p))
	return p
}

// Messages is the parent's place in the exchange of messages between the workers: what
// they send to message.Parent comes there. What is sent before Run waits for it. It is
// closed when Run returns, which waits for its handlers, whose contexts have ended then.
func (s *Set) Messages() *message.Endpoint { return s.post.endpoint }

// parentLink is the endpoint's way to the loop.
type parentLink post

func (l *parentLink) say(v said) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, v) // bounded by the endpoint's window and the router's
	poke(l.poke)
}

// Message takes in what this process sends.
func (l *parentLink) Message(m wire.Message, files []*os.File) {
	l.say(said{message: &m, files: files})
}

// Done takes in what this process has handled.
func (l *parentLink) Done(r wire.Result) (out <-chan struct{}) { l.say(said{done: &r}); return nil }

// Again takes a message back.
func (l *parentLink) Again(n int) { l.say(said{again: n}) }

// listen takes in what this process's endpoint has said.
func (p *post) listen() {
	p.mu.Lock()
	list := p.said
	p.said = nil
	p.mu.Unlock()
	for _, v := range list {
		switch {
		case v.done != nil:
			p.Done(router.Parent, *v.done)
		case v.again != 0:
			p.Again(router.Parent, v.again)
		default:
			id, err := p.Post(router.Parent, *v.message)
			if err != nil { // an endpoint keeps to the bounds
				p.endpoint.Result(wire.Result{N: v.message.N, Why: wire.WhyRefused, Text: err.Error()})
				continue
			}
			p.keep(id, parcels{files: v.files})
		}
	}
}

func (p *post) keep(id int, f parcels) {
	if len(f.files) > 0 {
		p.files[id] = f
	}
}

// closeFiles closes what is left.
func (p *post) closeFiles() {
	for id := range p.files {
		p.drop(id)
	}
}

func (p *post) drop(id int) {
	if f := p.files[id]; f.ours {
		closeFiles(f.files)
	}
	delete(p.files, id)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// who is what other processes know a worker by.
func (in *incarnation) who() wire.Sender {
	return wire.Sender{Group: in.group.Name, Slot: in.slot, ID: in.id, Generation: in.generation}
}

// phase is what a worker does with messages.
func (in *incarnation) phase() router.Phase {
	switch in.state {
	case lifecycle.Spawning, lifecycle.Starting:
		return router.Starts
	case lifecycle.Standby, lifecycle.Serving, lifecycle.Degraded, lifecycle.Condemned:
		if in.conn == nil || in.foreign() && !in.talks {
			return router.Mute
		}
		return router.Serves
	}
	return router.Leaves
}

// roles tells the router about the groups and the workers.
func (s *Set) roles() {
	changed := len(s.groups) != len(s.post.counts)
	for _, g := range s.groups {
		changed = changed || s.post.counts[g.Name] != g.addressed()
	}
	if changed {
		counts := map[string]int{}
		for _, g := range s.groups {
			counts[g.Name] = g.addressed()
		}
		s.post.counts = counts
		s.post.Groups(counts)
	}
	for _, g := range s.groups {
		for _, in := range g.members {
			if in.deaf && in.conn != nil && !in.foreign() {
				s.post.End(router.Peer(in.key), in.heard) // whatever it still does, nobody hears of it
			} else {
				s.post.Put(router.Peer(in.key), in.who(), in.phase())
			}
		}
	}
	if s.stopping && !s.post.Stopping() {
		s.post.Stop()
	}
}

// addressed is how many slots of a group get messages.
func (g *group) addressed() int {
	if g.dropped {
		return 0
	}
	return g.Count
}

// deliver sends what can be sent.
func (s *Set) deliver() {
	if s.yielded {
		return
	}
	for dirty := s.post.Dirty(); len(dirty) > 0; dirty = s.post.Dirty() {
		for _, p := range dirty {
			if p == router.Parent {
				s.deliverHere()
			} else if in := s.byKey[int(p)]; in != nil && in.out != nil {
				if in.foreign() {
					s.deliverToProgram(in)
				} else {
					s.deliverTo(in)
				}
			}
		}
	}
	for _, id := range s.post.Ended() {
		s.post.drop(id)
	}
}

// deliverHere is for this process.
func (s *Set) deliverHere() {
	for {
		it, ok := s.post.Next(router.Parent)
		if !ok {
			return
		}
		if it.Result != nil {
			r := *it.Result
			s.post.Took(router.Parent)
			s.post.endpoint.Result(r)
			continue
		}
		files, err := s.filesOf(it)
		if err == nil {
			files, err = copies(files)
		}
		if err != nil {
			s.post.Refuse(router.Parent, err.Error())
			continue
		}
		s.post.Took(router.Parent)
		s.post.endpoint.Receive(*it.Message, files)
	}
}

// deliverTo is for a worker, as long as its channel takes it.
func (s *Set) deliverTo(in *incarnation) {
	p := router.Peer(in.key)
	for {
		it, ok := s.post.Next(p)
		if !ok {
			return
		}
		var err error
		switch {
		case it.Result != nil:
			err = in.out.Put(it.Result)
		case s.holding && !in.adopted:
			return // the predecessor may go on instead, and know nothing of it
		default:
			var files []*os.File
			if files, err = s.filesOf(it); err == nil {
				err = in.out.Put(it.Message, files...)
			}
		}
		switch {
		case err == nil:
			s.post.Took(p)
		case errors.Is(err, wire.ErrFull), errors.Is(err, wire.ErrHalted), errors.Is(err, wire.ErrBroken), wire.Gone(err):
			return // there will be room, or its end comes
		default:
			s.post.Refuse(p, err.Error())
		}
	}
}

// filesOf are the files of a message.
func (s *Set) filesOf(it router.Item) ([]*os.File, error) {
	files := s.post.files[it.Letter].files
	if len(files) != it.Message.Files {
		return nil, fmt.Errorf("%d of its %d files are lost", it.Message.Files-len(files), it.Message.Files)
	}
	return files, nil
}

// copies are files for this process's own handlers.
func copies(files []*os.File) (list []*os.File, err error) {
	for _, f := range files {
		c, err := dupFile(f, f.Name())
		if err != nil {
			closeFiles(list)
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		list = append(list, c)
	}
	return list, nil
}

// isMail reports whether a command is about messages.
func isMail(cmd string) bool {
	switch cmd {
	case wire.CmdMessage, wire.CmdDone, wire.CmdAgain, wire.CmdMail:
		return true
	}
	return false
}

// filesWith is how many descriptors come with a line.
func filesWith(line []byte) int {
	var m struct {
		Cmd   string `json:"cmd"`
		Files int    `json:"files"`
	}
	switch {
	case json.Unmarshal(line, &m) != nil:
	case m.Cmd == wire.CmdMessage:
		return min(max(0, m.Files), message.MaxFiles)
	case m.Cmd == wire.CmdNodeHandle:
		return 1
	}
	return 0
}

// mail takes in a command about messages, and owns its files. An error is garbage.
func (s *Set) mail(in *incarnation, cmd string, line []byte, files []*os.File) error {
	p := router.Peer(in.key)
	switch cmd {
	case wire.CmdMessage:
		var m wire.Message
		if err := json.Unmarshal(line, &m); err != nil {
			closeFiles(files)
			return fmt.Errorf("%s: %w", cmd, err)
		}
		if m.Files != len(files) {
			closeFiles(files)
			return fmt.Errorf("%s: %w: %d announced, %d here, the most is %d", cmd, wire.ErrMissingFiles, m.Files, len(files), message.MaxFiles)
		}
		if s.post.Doubts(p) { // of before: its Mail says whether it still matters
			closeFiles(files)
			return nil
		}
		id, err := s.post.Post(p, m)
		if err != nil {
			closeFiles(files)
			return fmt.Errorf("%s: %w", cmd, err)
		}
		s.post.keep(id, parcels{files: files, ours: true})
	case wire.CmdDone:
		var r wire.Result
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("%s: %w", cmd, err)
		}
		in.handled++
		if !s.post.Doubts(p) {
			s.post.Done(p, r)
		}
	case wire.CmdAgain:
		var a wire.Again
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("%s: %w", cmd, err)
		}
		if !s.post.Doubts(p) {
			s.post.Again(p, a.N)
		}
	case wire.CmdMail:
		var m wire.Mail
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("%s: %w", cmd, err)
		}
		s.post.Mail(p, m)
	}
	return nil
}

// finishTime is how long the parent's own handlers may take to come to their end before
// another parent decides.
const finishTime = 200 * time.Millisecond

// pausePost lets this process's handlers end, so that another can go on.
func (s *Set) pausePost() {
	s.post.endpoint.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	_ = s.post.endpoint.Quiet(ctx) // what goes on is lost if the other one decides
	s.post.listen()
}
