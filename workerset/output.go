package workerset

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOutputLine is the longest line that is passed on whole, in bytes.
	maxOutputLine = 16 << 10
	// outputKept is how much is kept of each end of what a program prints, in bytes.
	outputKept = 2 << 10
)

// stream carries what a program prints, line by line, to where the set's own output
// goes. Its goroutine ends with the pipe, or when it is halted: it never waits for a
// reader of that output longer than until then.
type stream struct {
	r    *os.File
	name string // stdout or stderr
	saw  io.Writer
	put  func(line []byte, halted <-chan struct{}) bool // line ends with '\n' if it is whole
	rest []byte                                         // that was read and not put; the goroutine's while it runs

	halting sync.Once
	halted  chan struct{}
	done    chan struct{}
}

// openStream makes a pipe. w is for the process; the caller closes it.
func openStream(name string) (st *stream, w *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return &stream{r: r, name: name}, w, nil
}

// begin prepares a run.
func (st *stream) begin() {
	_ = st.r.SetReadDeadline(time.Time{})
	st.halting, st.halted, st.done = sync.Once{}, make(chan struct{}), make(chan struct{})
}

// run passes lines on until the pipe ends, or halt.
func (st *stream) run() {
	defer close(st.done)
	buf := make([]byte, 8<<10)
	for st.emit() {
		n, err := st.r.Read(buf)
		st.take(buf[:n])
		if err != nil {
			if st.emit() && !errors.Is(err, os.ErrDeadlineExceeded) {
				st.flush()
			}
			return
		}
	}
}

// take adds what was read.
func (st *stream) take(b []byte) {
	if len(b) > 0 {
		_, _ = st.saw.Write(b)
		st.rest = append(st.rest, b...)
	}
}

// emit puts whole lines, with their ends; false: it was halted before all were put.
func (st *stream) emit() bool {
	at := 0
	defer func() { st.rest = st.rest[:copy(st.rest, st.rest[at:])] }()
	for {
		i := bytes.IndexByte(st.rest[at:], '\n')
		skip := 1
		if i < 0 && len(st.rest)-at < maxOutputLine {
			return true
		}
		if i < 0 || i > maxOutputLine {
			i, skip = maxOutputLine, 0
		}
		if !st.put(st.rest[at:at+i+skip], st.halted) {
			return false
		}
		at += i + skip
	}
}

// flush puts what has no end of line.
func (st *stream) flush() {
	if len(st.rest) > 0 && st.put(st.rest, st.halted) {
		st.rest = nil
	}
}

// halt ends the run; what was read and not put stays in rest.
func (st *stream) halt() {
	st.halting.Do(func() { close(st.halted) })
	_ = st.r.SetReadDeadline(time.Unix(1, 0))
	<-st.done
}

// close ends the run for good.
func (st *stream) close() {
	if st.done != nil {
		st.halt()
	}
	st.r.Close()
}

// finish takes in what is in the pipe: the process has ended. It reports whether
// that is all, and everything is put; otherwise somebody else has the pipe, or the
// output's reader is slow.
func (st *stream) finish() (all bool) {
	st.halt()
	rc, err := st.r.SyscallConn()
	if err != nil {
		return true
	}
	buf := make([]byte, 64<<10)
	// More than a pipe holds: somebody goes on writing.
	for left := 2 << 20; left > 0; {
		n := 0
		var rerr error
		if err := rc.Control(func(fd uintptr) { n, rerr = unix.Read(int(fd), buf) }); err != nil {
			return true
		}
		if rerr == unix.EINTR {
			continue
		}
		if n <= 0 {
			if st.emit() && rerr == nil {
				st.flush()
				return len(st.rest) == 0
			}
			return false
		}
		st.take(buf[:n])
		left -= n
	}
	return false
}

// printer writes lines of programs, each in one write so that none is mixed with
// another. A reader that is gone loses them, and nobody else; for one that has stopped
// a number of them waits, and then the programs do.
type printer struct {
	out  map[string]chan []byte // by the stream's name
	done sync.WaitGroup
}

const (
	// waitingLines is how many lines wait for a reader that is slow.
	waitingLines = 256
	// printTime is how long the last of them may take at the end.
	printTime = time.Second
)

// newPrinter writes to copies of two descriptors. Unlike os.Stdout, a file of this
// kind does not end the process when its reader is gone (os/signal, "SIGPIPE").
func newPrinter(stdout, stderr int) *printer {
	p := &printer{out: map[string]chan []byte{}}
	for name, fd := range map[string]int{"stdout": stdout, "stderr": stderr} {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			continue
		}
		w, lines := os.NewFile(uintptr(n), name), make(chan []byte, waitingLines)
		p.out[name] = lines
		p.done.Go(func() {
			defer w.Close()
			for line := range lines {
				_, _ = w.Write(line)
			}
		})
	}
	return p
}

// close writes what waits, but not for long. No line may be put any more.
func (p *printer) close() {
	for _, lines := range p.out {
		close(lines)
	}
	written := make(chan struct{})
	go func() { p.done.Wait(); close(written) }()
	select {
	case <-written:
	case <-time.After(printTime): // the process is about to end, and so are these writes
	}
}

// print has one line of a worker written, in a form; false: it was halted before there was room.
func (p *printer) print(form Output, worker, stream string, line []byte, halted <-chan struct{}) bool {
	lines, ok := p.out[stream]
	if !ok {
		return true
	}
	text := format(form, worker, stream, line)
	select {
	case lines <- text:
		return true
	default:
	}
	select {
	case lines <- text:
		return true
	case <-halted:
		return false
	}
}

func format(form Output, worker, stream string, line []byte) []byte {
	if form == OutputRaw {
		return slices.Clone(line)
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	if form != OutputJSON {
		return slices.Concat([]byte(worker), []byte(" | "), line, []byte("\n"))
	}
	b, _ := json.Marshal(struct { // of strings and a time that can't fail
		Time   time.Time `json:"time"`
		Level  string    `json:"level"`
		Msg    string    `json:"msg"`
		Worker string    `json:"worker"`
		Stream string    `json:"stream"`
	}{time.Now(), "INFO", string(bytes.TrimSuffix(line, []byte("\r"))), worker, stream})
	return append(b, '\n')
}
