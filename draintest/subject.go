package draintest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/procs"
)

// ErrStart: the program could not be started, or there is none to be found.
var ErrStart = errors.New("draintest: no server to test")

// envRun marks the program's processes.
const envRun = "DRAINTEST_RUN"

// stopTime is how long the program has to stop at the end.
const stopTime = 30 * time.Second

// subject is the server under test: its processes, as far as they are known.
type subject struct {
	cfg    Config
	cmd    *exec.Cmd // nil: it was found running
	exited chan struct{}
	output *os.File      // what the program's processes print
	copied chan struct{} // closed when all of that has gone to Config.Output
	tree   *tree         // nil: processes can't be watched
	memory int64         // the most so far
}

// newSubject starts the program, or finds the server.
func newSubject(cfg Config) (*subject, error) {
	s := &subject{cfg: cfg}
	var run [8]byte
	rand.Read(run[:]) // never fails
	mark := envRun + "=" + hex.EncodeToString(run[:])
	if len(cfg.Command) > 0 {
		if err := s.start(mark); err != nil {
			return nil, err
		}
	}
	if s.cmd != nil || cfg.PIDFile != "" {
		s.tree = newTree(func(pid int) bool {
			env, err := procs.Environ(pid)
			return err == nil && s.cmd != nil && slices.Contains(env, mark)
		}, os.Getpid(), 1)
	}
	if s.cmd == nil && cfg.PIDFile != "" {
		pid, err := readPIDFile(cfg.PIDFile)
		if err == nil {
			err = notOurs(pid)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStart, err)
		}
	}
	s.look()
	return s, nil
}

// notOurs refuses a process that this one descends from: it is no server that is tested.
func notOurs(pid int) error {
	all, err := procs.List()
	if err != nil {
		return nil // not Linux
	}
	parents := map[int]int{}
	for _, p := range all {
		parents[p.PID] = p.PPID
	}
	for up := os.Getpid(); up > 0; up = parents[up] {
		if up == pid {
			return fmt.Errorf("the PID file names process %d, from which this one descends", pid)
		}
	}
	return nil
}

// serves checks that one of the server's processes has a socket that listens at each
// address: else somebody else answers. What can't be known is no error.
func (s *subject) serves() error {
	if !s.watched() || s.cfg.Proxied {
		return nil
	}
	for _, addr := range s.cfg.addrs() {
		if err := s.servesAt(addr); err != nil {
			return err
		}
	}
	return nil
}

func (s *subject) servesAt(addr string) error {
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	listeners, err := procs.Listeners(network, address)
	if err != nil || len(listeners) == 0 {
		return nil // on another machine, or in another network namespace
	}
	s.look()
	for _, l := range s.tree.alive() {
		fds, err := procs.FDs(l.PID)
		if err != nil {
			return nil // somebody else's
		}
		for _, target := range fds {
			if listeners[target] {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: %s is answered by another process than the server's %s (a proxy in front of it? Say so by --proxied, or Config.Proxied)",
		ErrStart, addr, pids(s.tree.alive()))
}

func (s *subject) start(mark string) error {
	// On other systems processes are not watched.
	if err := procs.Subreaper(); err != nil && !errors.Is(err, procs.ErrNotLinux) {
		return err
	}
	cmd := exec.Command(s.cfg.Command[0], s.cfg.Command[1:]...)
	// The pipe outlives this process's child: those after it print into it, too.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.cfg.Dir, w, w
	cmd.Env = append(append(os.Environ(), s.cfg.Env...), mark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test
	if err := cmd.Start(); err != nil {
		r.Close()
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	s.cmd, s.exited = cmd, make(chan struct{})
	s.output, s.copied = r, make(chan struct{})
	go func() {
		defer close(s.copied)
		_, _ = io.Copy(s.cfg.Output, r)
		_, _ = io.Copy(io.Discard, r) // the program is not to be stopped by a writer that fails
	}()
	go func() {
		defer close(s.exited)
		_ = cmd.Wait() // ProcessState has it
	}()
	return nil
}

// watched tells whether there are processes to look at.
func (s *subject) watched() bool { return s.tree != nil && len(s.tree.lives) > 0 }

// root is the process that was started, or, of a server that was found running, the one
// that the PID file names; 0 if there is none.
func (s *subject) root() int {
	if s.cmd == nil {
		pid, _ := readPIDFile(s.cfg.PIDFile)
		return pid
	}
	if isClosed(s.exited) {
		return 0
	}
	return s.cmd.Process.Pid
}

// main is the process to send signals to, or 0. Of a program that was started it is one
// that is known to be its own: a PID file may be an old one.
func (s *subject) main() int {
	root := s.root()
	if s.cmd == nil || s.tree == nil {
		return root
	}
	named, _ := readPIDFile(s.cfg.PIDFile)
	for _, l := range s.tree.alive() {
		if l.PID == named {
			return named
		}
	}
	if l := s.tree.main(); root == 0 && l != nil {
		return l.PID
	}
	return root
}

// look notes who is there, and asks for those that have ended and are this process's.
func (s *subject) look() {
	if s.tree == nil {
		return
	}
	all, err := procs.List()
	if err != nil {
		return // not Linux, or nothing to be known now
	}
	s.tree.look(time.Now(), all, s.root())
	for _, l := range s.tree.lives {
		if l.Args == nil && l.Ended.IsZero() {
			l.Args, _ = procs.Args(l.PID)
		}
		if l.zombie && l.ppid == os.Getpid() && (s.cmd == nil || l.PID != s.cmd.Process.Pid) {
			_, _ = unix.Wait4(l.PID, nil, unix.WNOHANG, nil)
			l.zombie = false
		}
		if s.cmd != nil && l.PID == s.cmd.Process.Pid {
			l.zombie = false // somebody waits for it
		}
	}
}

// measure looks at the memory.
func (s *subject) measure() {
	if s.tree == nil {
		return
	}
	var sum int64
	for _, l := range s.tree.alive() {
		n, err := procs.Memory(l.PID)
		if err != nil {
			continue // it is somebody else's, or has ended
		}
		sum += n
	}
	s.memory = max(s.memory, sum)
}

// descriptors are those that all processes have open, but for what comes and goes with
// clients; 0: not known.
func (s *subject) descriptors() (n int) {
	if s.tree == nil {
		return 0
	}
	var open []string
	for _, l := range s.tree.alive() {
		fds, err := procs.FDs(l.PID)
		if err != nil {
			return 0 // it has ended just now, or is somebody else's
		}
		open = slices.AppendSeq(open, maps.Values(fds))
	}
	standing, err := procs.Standing()
	if err != nil {
		return 0
	}
	for _, target := range open {
		if standing[target] || !strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// gone tells whether the program has ended, and nothing is left of it.
func (s *subject) gone() bool {
	switch {
	case s.cmd != nil && !isClosed(s.exited):
		return false
	case s.tree != nil && len(s.tree.lives) > 0:
		if len(s.tree.alive()) == 0 {
			// The list of processes is made one by one: of two, one may have ended before it was
			// looked at, and the other have begun after the names were read.
			s.look()
		}
		return len(s.tree.alive()) == 0
	}
	return s.cmd != nil
}

// exit is how the program has.
func (s *subject) exit() string {
	if s.cmd == nil || !isClosed(s.exited) {
		return ""
	}
	return s.cmd.ProcessState.String()
}

// stop ends what was started, and returns what was left of it after that.
func (s *subject) stop() (left []*Life) {
	if s.cmd == nil {
		return nil
	}
	s.look()
	if pid := s.main(); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	s.await(stopTime, s.gone)
	if s.tree != nil {
		left = s.tree.alive()
	}
	for range 100 { // those that are left may start others
		if s.gone() {
			break
		}
		if !isClosed(s.exited) {
			_ = s.cmd.Process.Kill()
		}
		if s.tree != nil {
			for _, l := range s.tree.alive() {
				_ = syscall.Kill(l.PID, syscall.SIGKILL)
			}
		}
		s.await(time.Second, s.gone)
	}
	<-s.exited
	// Who is left, and not known, may have it.
	_ = s.output.SetReadDeadline(time.Now().Add(time.Second))
	<-s.copied
	s.output.Close()
	return left
}

// await looks again and again until it is done, for that long.
func (s *subject) await(limit time.Duration, done func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for s.look(); !done(); s.look() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// readPIDFile returns the pid in a file, or 0 with an error. No path is no file.
func readPIDFile(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("PID file %s: %.40q is no pid", path, b)
	}
	return pid, nil
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
