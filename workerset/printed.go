package workerset

import (
	"bytes"
	"time"
)

// Printed is a line that a worker has printed.
type Printed struct {
	Time       time.Time
	Group      string
	Slot       int
	ID         int
	Generation int
	Pid        int
	Stream     string // stdout or stderr
	// Text is the line without its end, or, of a long one, a part of it. It is only valid
	// during the call.
	Text []byte
}

// putter is where lines of one of a worker's streams go. A line counts as printed when it
// has been passed on: what is not yet goes to the next parent.
func (s *Set) putter(in *incarnation, stream string) func(line []byte, halted <-chan struct{}) bool {
	form := s.cfg.Output
	if !in.program {
		form = OutputRaw
	}
	name, silent, told := in.name(), in.as.Silent, s.cfg.Printed
	p := Printed{Group: in.group.Name, Slot: in.slot, ID: in.id, Generation: in.generation, Pid: in.pid(), Stream: stream}
	return func(line []byte, halted <-chan struct{}) bool {
		if !silent && !s.print.print(form, name, stream, line, halted) {
			return false
		}
		if told != nil {
			p := p
			p.Time, p.Text = time.Now(), bytes.TrimRight(line, "\r\n")
			told(p)
		}
		return true
	}
}
