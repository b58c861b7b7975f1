package state

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// reader reads one host's value all the time. No read fails, and no process ever goes back.
// Values are numbers.
type reader struct {
	h     *host
	stop  chan struct{}
	wg    sync.WaitGroup
	reads int
	end   func()
}

func (h *host) read() *reader {
	r := &reader{h: h, stop: make(chan struct{})}
	addr := h.addr
	r.wg.Go(func() {
		last := map[int]int{}
		for {
			select {
			case <-r.stop:
				return
			default:
			}
			v, err := seeAt(addr)
			if err != nil {
				h.t.Errorf("read %d: %v", r.reads, err)
				return
			}
			n := 0
			if _, err := fmt.Sscanf(v.Text, "v%d", &n); err != nil || n < last[v.Pid] || !v.OK || v.Version == "" || v.AgeMS < 0 {
				h.t.Errorf("%+v after %d", v, last[v.Pid])
			}
			last[v.Pid] = n
			r.reads++
		}
	})
	r.end = sync.OnceFunc(func() { close(r.stop); r.wg.Wait() })
	h.t.Cleanup(r.end)
	return r
}

// TestLife: the value goes on, and is followed, over the ends of workers, of agents and of
// parents, by those who drain, too.
func TestLife(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	must(t, write(name, "v1"))
	h := newHost(t, "text", name, 2)
	h.text("v1")
	r := h.read()
	n := 1
	next := func() string {
		n++
		v := fmt.Sprint("v", n)
		must(t, put(name, v))
		return v
	}
	h.text(next())

	h.kill("agent", syscall.SIGKILL)
	h.text(next())
	h.kill("agent", syscall.SIGTERM)
	h.text(next())
	h.kill("web", syscall.SIGTERM)
	h.text(next())

	old := h.follow() // of a worker that drains from now on
	old.until(fmt.Sprint("v", n))
	must(t, h.set.Restart(h.ctx()))
	v := next()
	old.until(v)
	h.text(v)
	old.body.Close()
	must(t, h.set.Drained(h.ctx()))

	for range 2 {
		old = h.follow()
		old.until(fmt.Sprint("v", n))
		h.upgrade()
		v = next()
		old.until(v)
		h.text(v)
		if old.last.Pid == h.see().Pid {
			t.Error("it is the same process")
		}
		old.body.Close()
		must(t, h.set.Drained(h.ctx()))
	}
	h.text(next())

	// An agent that hangs holds nobody up, and the age tells.
	agent := h.workers("agent")[0].Pid
	must(t, syscall.Kill(agent, syscall.SIGSTOP))
	v = fmt.Sprint("v", n)
	last := next()
	h.everywhere("the old value", func(w view) bool { return w.Text == v && w.AgeMS > 300 })
	must(t, syscall.Kill(agent, syscall.SIGCONT))
	h.text(last)

	// Without the truth the value stays, in those that come, too, with a new agent.
	v = fmt.Sprint("v", n)
	must(t, os.Remove(name))
	in := func(v view) bool { return v.Err != "" }
	h.everywhere("doubt", in)
	h.kill("agent", syscall.SIGKILL)
	h.kill("web", syscall.SIGTERM)
	h.everywhere(v+" in doubt", func(w view) bool { return w.Text == v && w.Err != "" })
	h.text(next())
	r.end()
	t.Logf("%d reads", r.reads)
}
