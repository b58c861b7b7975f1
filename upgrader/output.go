package upgrader

import (
	"io"
	"os"
	"sync"
	"time"
)

const outputTail = 8 << 10

// output lets what a new program prints through to this process's own standard
// output and error, and keeps the end of it for the case that the upgrade fails.
//
// The pipes outlive the upgrade: the new process points its descriptors 1 and 2
// back to the originals at the commit and reads the pipes from then on, for
// children that it may have started with them before.
type output struct {
	out, err capture
	mu       sync.Mutex
	tail     []byte
}

type capture struct {
	r, w *os.File
	done chan struct{}
}

func newOutput() (*output, error) {
	o := &output{}
	for _, c := range []*capture{&o.out, &o.err} {
		var err error
		if c.r, c.w, err = os.Pipe(); err != nil {
			o.close()
			return nil, err
		}
	}
	return o, nil
}

// start begins to read, once the child has its copies of the write ends.
func (o *output) start() {
	for _, c := range []struct {
		*capture
		to *os.File
	}{{&o.out, os.Stdout}, {&o.err, os.Stderr}} {
		c.w.Close()
		c.done = make(chan struct{})
		go func() {
			defer close(c.done)
			_, _ = io.Copy(io.MultiWriter(tailWriter{o}, lenient{c.to}), c.r)
		}()
	}
}

type tailWriter struct{ o *output }

func (t tailWriter) Write(p []byte) (int, error) {
	t.o.mu.Lock()
	defer t.o.mu.Unlock()
	t.o.tail = append(t.o.tail, p...)
	if over := len(t.o.tail) - outputTail; over > 0 {
		t.o.tail = append(t.o.tail[:0], t.o.tail[over:]...)
	}
	return len(p), nil
}

// lenient hides that the original can't be written to: the tail is kept anyway.
type lenient struct{ w io.Writer }

func (l lenient) Write(p []byte) (int, error) {
	_, _ = l.w.Write(p)
	return len(p), nil
}

// String is the end of what was printed.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.tail)
}

// readers are the read ends, to be handed on.
func (o *output) readers() []NamedFile {
	return []NamedFile{{fileStdout, o.out.r}, {fileStderr, o.err.r}}
}

// fds are the write ends' numbers for the child. Fd, which makes them blocking,
// is what a program expects of its standard output.
func (o *output) fds() (stdout, stderr int) { return int(o.out.w.Fd()), int(o.err.w.Fd()) }

// finish reads what is still to come, and ends. Once every process that had a
// write end is gone that is the end of file; one that survived is not waited for
// longer than the grace.
func (o *output) finish(grace time.Duration) {
	for _, c := range []*capture{&o.out, &o.err} {
		if c.done != nil {
			_ = c.r.SetReadDeadline(time.Now().Add(grace))
			<-c.done
		}
	}
	o.close()
}

func (o *output) close() {
	for _, c := range []capture{o.out, o.err} {
		if c.r != nil {
			c.r.Close()
			c.w.Close()
		}
	}
}
