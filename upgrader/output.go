package upgrader

import (
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/excerpt"
)

// outputKept is how much is kept of each end of what a new program prints, in bytes.
const outputKept = 4 << 10

// lastWords is how long output that is still in a pipe is waited for when the
// process that wrote it is dead, and others may still have the pipe.
const lastWords = 100 * time.Millisecond

// output lets what a new program prints through to this process's own standard
// output and error, and keeps both ends of it for the case that the upgrade fails.
//
// The pipes outlive the upgrade: the new process has the read ends, too. At the
// commit it points its descriptors 1 and 2 back to the originals and reads the
// pipes from then on, for children that it may have started with them before.
type output struct {
	std    [2]capture // output and error
	paused atomic.Bool
	kept   excerpt.Excerpt
}

type capture struct {
	r, w *os.File
	to   *os.File // nil if there is nothing to write to
	done chan struct{}
}

// newOutput opens the pipes. stdout and stderr are the originals.
func newOutput(stdout, stderr int) (*output, error) {
	o := &output{kept: excerpt.Excerpt{Size: outputKept}}
	for i, to := range []int{stdout, stderr} {
		c := &o.std[i]
		var err error
		if c.r, c.w, err = os.Pipe(); err != nil {
			o.close()
			return nil, err
		}
		c.to = dupFile(to)
	}
	return o, nil
}

// dupFile is another descriptor of fd, or nil. Unlike os.Stdout, a file of this
// kind does not kill the process when its reader is gone (package os/signal,
// SIGPIPE): what the new program prints must not end this one.
func dupFile(fd int) *os.File {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(n), "output")
}

// start begins to read, once the child has its copies of the write ends.
func (o *output) start() {
	for i := range o.std {
		o.std[i].w.Close()
		o.read(&o.std[i])
	}
}

func (o *output) read(c *capture) {
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		w := io.MultiWriter(&o.kept, lenient{c.to})
		if _, _ = io.Copy(w, c.r); !o.paused.Load() {
			copyRest(w, c.r)
		}
	}()
}

// pause ends the reading, unless the original takes nothing: two readers would mix up
// the order. What is printed then waits in the pipes for the new process, or resume.
func (o *output) pause() {
	o.paused.Store(true)
	for i := range o.std {
		_ = o.std[i].r.SetReadDeadline(time.Unix(1, 0))
	}
	late := time.After(time.Second)
	for i := range o.std {
		select {
		case <-o.std[i].done:
		case <-late:
		}
	}
}

// resume begins to read again.
func (o *output) resume() {
	if !o.paused.Swap(false) {
		return
	}
	for i := range o.std {
		c := &o.std[i]
		_ = c.r.SetReadDeadline(time.Time{})
		select {
		case <-c.done:
			o.read(c)
		default: // it has not ended
		}
	}
}

// lenient hides that the original can't be written to: what is printed is kept anyway,
// and nobody is left waiting with a full pipe.
type lenient struct{ w io.Writer }

func (l lenient) Write(p []byte) (int, error) {
	_, _ = l.w.Write(p)
	return len(p), nil
}

// copyRest copies what is in a pipe now, whatever its deadline.
func copyRest(w io.Writer, pipe *os.File) {
	rc, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for left := 1 << 20; left > 0; { // more than a pipe holds: somebody goes on writing
		n := 0
		// Non-blocking, as os.Pipe has made it.
		if err := rc.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), buf) }); err != nil || n <= 0 {
			return
		}
		_, _ = w.Write(buf[:n])
		left -= n
	}
}

// String is an excerpt of what was printed.
func (o *output) String() string { return o.kept.String() }

// fds are the write ends' numbers for the child. Fd, which makes them blocking,
// is what a program expects of its standard output.
func (o *output) fds() (stdout, stderr int) { return int(o.std[0].w.Fd()), int(o.std[1].w.Fd()) }

// finish reads what is still to come, and ends. Once every process that had a
// write end is gone that is the end of file; one that survived is not waited for
// longer than the grace, and neither is an original that takes nothing.
func (o *output) finish(grace time.Duration) {
	for _, c := range o.std {
		if c.done != nil {
			_ = c.r.SetReadDeadline(time.Now().Add(grace))
			select {
			case <-c.done:
			case <-time.After(grace + time.Second): // it ends when the original takes what it was given
			}
		}
	}
	o.close()
}

func (o *output) close() {
	for _, c := range o.std {
		c.r.Close() // a nil *os.File may be closed, too
		c.w.Close()
		c.to.Close()
	}
}
