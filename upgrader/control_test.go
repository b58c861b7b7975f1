//go:build linux

package upgrader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

// answer is what an Upgrade has returned, for a test in another process.
type answer struct {
	Err    string
	Is     []string // sentinels
	Failed *FailedError
	Cause  string // its Err
}

var sentinels = map[string]error{
	"not ready": ErrNotReady, "in progress": ErrInProgress, "predecessor alive": ErrPredecessorAlive,
	"stopped": ErrStopped, "timeout": ErrTimeout, "rejected": ErrRejected, "foreign": ErrForeign,
	"version": errVersion, "ended": errEnded, "closed": errClosed,
	"deadline": context.DeadlineExceeded, "canceled": context.Canceled,
	"permission": os.ErrPermission, "not exist": os.ErrNotExist, "not executable": syscall.ENOEXEC,
}

func answerOf(err error) (a answer) {
	if err == nil {
		return a
	}
	a.Err = err.Error()
	for name, s := range sentinels {
		if errors.Is(err, s) {
			a.Is = append(a.Is, name)
		}
	}
	if errors.As(err, &a.Failed) {
		a.Cause = fmt.Sprint(a.Failed.Err)
		f := *a.Failed
		f.Err = nil
		a.Failed = &f
	}
	return a
}

// stats is what a process says of itself.
type stats struct {
	Pid, Generation int
	Args            []string
	Cmdline, Exe    string
	Dir             string
	Addrs           map[string]string
	Nonblock        bool // of all sockets
	Blocking        bool // of standard output and error
	FDs             map[string]string
	Goroutines      int
	Env             []string
}

func (s *service) control() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if d, err := time.ParseDuration(r.FormValue("timeout")); err == nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		err := s.up.Upgrade(ctx)
		if r.Context().Err() != nil {
			_ = report("control:", err)
		}
		_ = json.NewEncoder(w).Encode(answerOf(err))
	})
	mux.HandleFunc("/release", func(http.ResponseWriter, *http.Request) { close(s.release) })
	mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(s.stats())
	})
	mux.HandleFunc("/spawn", func(w http.ResponseWriter, r *http.Request) {
		<-s.up.decided // the predecessor knows a moment earlier
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envProgram+"=inspect")
		out, err := cmd.Output()
		check(err)
		_, _ = w.Write(out)
	})
	ln, err := net.Listen("unix", filepath.Join(s.dir, fmt.Sprint("ctl.", os.Getpid())))
	check(err)
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(ln) }()
	return srv
}

func (s *service) stats() stats {
	st := inspect()
	st.Generation = s.up.Generation()
	st.Addrs, st.Nonblock = map[string]string{}, true
	s.up.mu.Lock()
	defer s.up.mu.Unlock()
	for name, sock := range s.up.sockets {
		if sock.Addr() == nil {
			continue // a file
		}
		flags, err := unix.FcntlInt(uintptr(sock.Fd()), unix.F_GETFL, 0)
		st.Nonblock = st.Nonblock && err == nil && flags&unix.O_NONBLOCK != 0
		st.Addrs[name] = sock.Addr().String()
	}
	return st
}

// bareMain is a program that upgrades by tableflip alone, to a service.
func bareMain() {
	tf, err := tableflip.New(tableflip.Options{})
	check(err)
	check(tf.Ready())
	os.Setenv(envProgram, "service")
	for err = tf.Upgrade(); !strings.Contains(err.Error(), "pid="); err = tf.Upgrade() {
	}
	fmt.Println("bare:", err)
}

// inspect says what a process can see of itself.
func inspect() stats {
	st := stats{Pid: os.Getpid(), Args: os.Args, Env: os.Environ(), FDs: map[string]string{}, Goroutines: runtime.NumGoroutine()}
	b, _ := os.ReadFile("/proc/self/cmdline")
	st.Cmdline, _, _ = strings.Cut(string(b), "\x00")
	st.Blocking = true
	for fd := range 2 {
		flags, err := unix.FcntlInt(uintptr(fd+1), unix.F_GETFL, 0)
		st.Blocking = st.Blocking && err == nil && flags&unix.O_NONBLOCK == 0
	}
	st.Exe, _ = os.Readlink("/proc/self/exe")
	st.Dir, _ = os.Readlink("/proc/self/cwd")
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The one that listed them is gone by now.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			st.FDs[e.Name()] = to
		}
	}
	return st
}

func inspectMain() { _ = json.NewEncoder(os.Stdout).Encode(inspect()) }
