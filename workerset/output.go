package workerset

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOutputLine is the longest line that is passed on whole, in bytes.
	maxOutputLine = 16 << 10
	// maxTail is how much of what a program printed last is kept, in bytes.
	maxTail = 4 << 10
)

// stream carries what a program prints, line by line, to where the set's own output
// goes. Its goroutine ends with the pipe, or when it is halted.
type stream struct {
	r    *os.File
	name string // stdout or stderr
	put  func(line []byte)
	rest []byte // of a line; the goroutine's while it runs
	done chan struct{}
}

// openStream makes a pipe. w is for the process; the caller closes it.
func openStream(name string) (st *stream, w *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return &stream{r: r, name: name}, w, nil
}

// run passes lines on until the pipe ends, or halt.
func (st *stream) run() {
	defer close(st.done)
	buf := make([]byte, 8<<10)
	for {
		n, err := st.r.Read(buf)
		st.take(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			st.flush()
			return
		}
	}
}

// take cuts lines.
func (st *stream) take(b []byte) {
	st.rest = append(st.rest, b...)
	for {
		i := bytes.IndexByte(st.rest, '\n')
		if i < 0 && len(st.rest) < maxOutputLine {
			return
		}
		if i < 0 || i > maxOutputLine {
			i = maxOutputLine
			st.put(st.rest[:i])
		} else {
			st.put(st.rest[:i])
			i++
		}
		st.rest = st.rest[:copy(st.rest, st.rest[i:])]
	}
}

// flush passes on what has no end of line.
func (st *stream) flush() {
	if len(st.rest) > 0 {
		st.put(st.rest)
		st.rest = nil
	}
}

// halt stops reading; what was read of an unfinished line stays in rest.
func (st *stream) halt() {
	_ = st.r.SetReadDeadline(time.Unix(1, 0))
	<-st.done
}

// finish takes in what is in the pipe now: the process has ended. It reports
// whether somebody else still has the pipe.
func (st *stream) finish() (held bool) {
	st.halt()
	rc, err := st.r.SyscallConn()
	if err != nil {
		return false
	}
	buf := make([]byte, 64<<10)
	// More than a pipe holds: somebody goes on writing.
	for left := 2 << 20; left > 0; {
		n := 0
		var rerr error
		if err := rc.Control(func(fd uintptr) { n, rerr = unix.Read(int(fd), buf) }); err != nil {
			return false
		}
		switch {
		case rerr == unix.EINTR:
			continue
		case rerr == unix.EAGAIN:
			return true
		case n <= 0:
			st.flush()
			return false
		}
		st.take(buf[:n])
		left -= n
	}
	return true
}

// printer writes lines of programs, each in one write so that none is mixed with
// another. A reader that is gone loses them, and nobody else.
type printer struct {
	form Output
	out  map[string]io.Writer // by the stream's name
	mu   sync.Mutex
	buf  bytes.Buffer
}

// newPrinter writes to copies of two descriptors. Unlike os.Stdout, a file of this
// kind does not end the process when its reader is gone (os/signal, "SIGPIPE").
func newPrinter(form Output, stdout, stderr int) *printer {
	p := &printer{form: form, out: map[string]io.Writer{}}
	for name, fd := range map[string]int{"stdout": stdout, "stderr": stderr} {
		if n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			p.out[name] = os.NewFile(uintptr(n), name)
		}
	}
	return p
}

func (p *printer) close() {
	for _, w := range p.out {
		w.(io.Closer).Close()
	}
}

// print writes one line of a worker.
func (p *printer) print(worker, stream string, line []byte) {
	w, ok := p.out[stream]
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf.Reset()
	if p.form == OutputJSON {
		_ = json.NewEncoder(&p.buf).Encode(struct {
			Time   time.Time `json:"time"`
			Level  string    `json:"level"`
			Msg    string    `json:"msg"`
			Worker string    `json:"worker"`
			Stream string    `json:"stream"`
		}{time.Now(), "INFO", string(bytes.TrimSuffix(line, []byte("\r"))), worker, stream})
	} else {
		p.buf.WriteString(worker)
		p.buf.WriteString(" | ")
		p.buf.Write(line)
		p.buf.WriteByte('\n')
	}
	_, _ = w.Write(p.buf.Bytes())
}

// tail keeps the end of what a program printed, for those who ask why it failed.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(append(t.b, line...), '\n')
	if over := len(t.b) - maxTail; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
