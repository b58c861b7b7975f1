package upgrader

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// Ward is a process that a new program has started and that may serve already,
// although the predecessor has not let go: a program that knows nothing of a commit,
// or any worker after it. If the upgrade fails, the predecessor drains it rather than
// killing it with the rest.
type Ward struct {
	Pid     int
	Pidfd   *os.File       // refers to it (pidfd_open(2))
	Output  []*os.File     // read ends of pipes that it writes to, if any
	Signal  syscall.Signal // asks it to drain
	Timeout time.Duration  // how long that may take before SIGTERM and, 2 s later, SIGKILL
}

// Entrust tells the predecessor of a ward. It does not wait; the files stay the
// caller's. It does nothing where there is no predecessor, or one of an older
// version, and once that one has let go.
func (u *Upgrader) Entrust(w Ward) error {
	if u.pred == nil || u.pred.version < versionWards {
		return nil
	}
	m := message{Cmd: cmdWard, Pid: w.Pid, Signal: int(w.Signal), TimeoutMS: w.Timeout.Milliseconds(), Output: len(w.Output)}
	err := u.pred.conn.TrySend(m, append([]*os.File{w.Pidfd}, w.Output...)...)
	if errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// ward is one on the predecessor's side.
type ward struct {
	proc    *launch.Process
	output  []*os.File
	signal  syscall.Signal
	timeout time.Duration
}

func (a *attempt) entrusted(m message) error {
	files, err := a.conn.TakeFiles(1 + m.Output)
	if err != nil {
		return err
	}
	p, err := launch.Adopt(m.Pid, files[0])
	if err != nil {
		closeAll(files[1:])
		return err
	}
	a.wards = append(a.wards, ward{p, files[1:], syscall.Signal(m.Signal), time.Duration(m.TimeoutMS) * time.Millisecond})
	return nil
}

func (w ward) close() {
	w.proc.Close()
	closeAll(w.output)
}

// wardTerm is what a ward gets between SIGTERM and SIGKILL.
const wardTerm = 2 * time.Second

// drain asks the ward to drain, and ends it when its time is up. What it prints goes
// to this process's own output.
func (w ward) drain(stdout, stderr int) {
	defer w.close()
	var copying sync.WaitGroup
	for i, r := range w.output {
		to := dupFile(stdout)
		if i > 0 {
			to = dupFile(stderr)
		}
		copying.Go(func() { _, _ = io.Copy(lenient{to}, r); to.Close() })
	}
	ended := make(chan struct{})
	go func() { w.proc.Wait(); close(ended) }()
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{w.signal, w.timeout}, {syscall.SIGTERM, wardTerm}, {syscall.SIGKILL, time.Hour}} {
		_ = w.proc.Signal(step.signal)
		select {
		case <-ended:
			for _, r := range w.output {
				_ = r.SetReadDeadline(time.Now().Add(lastWords))
			}
			copying.Wait()
			return
		case <-time.After(step.wait):
		}
	}
}
