package procs

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Subreaper makes this process the parent of its descendants whose own parent
// ends, instead of pid 1, until it ends. A test that is the subreaper sees each
// process that its program leaves behind. See PR_SET_CHILD_SUBREAPER(2const).
func Subreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("procs: becoming a subreaper: %w", err)
	}
	return nil
}

// List returns all processes, without their Args.
func List() ([]Process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make([]Process, 0, len(stats))
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it ended since
		}
		p, err := parseStat(line)
		if err != nil {
			return nil, err
		}
		if ended(p.State) {
			p.State = stateOf(p)
		}
		all = append(all, p)
	}
	return all, nil
}

func ended(state byte) bool { return state == 'Z' || state == 'X' }

// stateOf is the state of a process whose first thread has ended: that of another one that has
// not, if there is one. So it is for a moment in each program that executes another one from a
// thread that is not the first (execve(2)).
func stateOf(p Process) byte {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/stat", p.PID))
	for _, path := range threads {
		if line, err := os.ReadFile(path); err == nil {
			if t, err := parseStat(line); err == nil && !ended(t.State) {
				return t.State
			}
		}
	}
	return p.State
}

// Args returns a process's command line. It is empty for a zombie.
func Args(pid int) ([]string, error) { return strs(pid, "cmdline") }

// Environ returns the environment that a process was started with, as "NAME=value".
func Environ(pid int) ([]string, error) { return strs(pid, "environ") }

// strs reads a file of strings that end with a zero.
func strs(pid int, name string) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return nil, fmt.Errorf("procs: %s of process %d: %w", name, pid, err)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// Memory returns the proportional set size of a process in bytes: its own memory, and its
// share of what it has in common with others, so that the sum over processes counts
// nothing twice. See proc_pid_smaps(5).
func Memory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("procs: memory of process %d: %w", pid, err)
	}
	return parsePSS(b)
}

// Descendants returns the children of process pid, their children and so on,
// zombies too, by pid. Children whose parent ended while it looked may be missing:
// where that matters, be the [Subreaper] and look again.
func Descendants(pid int) ([]Process, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	children := map[int][]Process{}
	for _, p := range all {
		children[p.PPID] = append(children[p.PPID], p)
	}
	found := slices.Clone(children[pid])
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].PID]...)
	}
	for i := range found {
		found[i].Args, _ = Args(found[i].PID) // it may have ended since
	}
	slices.SortFunc(found, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	return found, nil
}

// Standing returns the sockets on this machine that do not come and go with clients, as the
// links in /proc/PID/fd say: "socket:[4711]". Those are TCP's that listen, all of UDP, and
// unix sockets but for those that were accepted, whose path proc_pid_net(5) shows.
func Standing() (map[string]bool, error) {
	found := map[string]bool{}
	tables := []string{"tcp", "tcp6", "udp", "udp6"}
	for _, table := range append(tables, tables...) { // see Peers
		err := eachLine("/proc/net/"+table, func(line string) error {
			if table[0] == 't' && !strings.Contains(line, " 0A ") { // one of many that were closed
				return nil
			}
			s, err := parseTCP(line)
			if err == nil && (s.state == tcpListen || table[0] == 'u') {
				found["socket:["+s.inode+"]"] = true
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, eachLine("/proc/net/unix", func(line string) error {
		// Num RefCount Protocol Flags Type St Inode Path; St 3 is connected.
		if f := strings.Fields(line); len(f) == 7 || len(f) > 7 && f[5] != "03" {
			found["socket:["+f[6]+"]"] = true
		}
		return nil
	})
}

// Listeners returns the sockets of this machine that listen at an address, in the form of
// the links in /proc/PID/fd: for a unix socket those of its path, for TCP those of the
// address's port, whatever addresses they are bound to. The network is "tcp" or "unix".
func Listeners(network, address string) (map[string]bool, error) {
	found := map[string]bool{}
	if network == "unix" {
		return found, eachLine("/proc/net/unix", func(line string) error {
			// Num RefCount Protocol Flags Type St Inode Path; this flag is __SO_ACCEPTCON.
			if f := strings.Fields(line); len(f) > 7 && f[3] == "00010000" && line[strings.Index(line, f[6])+len(f[6])+1:] == address {
				found["socket:["+f[6]+"]"] = true
			}
			return nil
		})
	}
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("procs: port of %s: %w", address, err)
	}
	for _, table := range []string{"tcp", "tcp6", "tcp", "tcp6"} { // see Peers
		err := eachLine("/proc/net/"+table, func(line string) error {
			if !strings.Contains(line, " 0A ") { // one of many that were closed
				return nil
			}
			s, err := parseTCP(line)
			if err == nil && s.state == tcpListen && s.local.Port() == uint16(port) {
				found["socket:["+s.inode+"]"] = true
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// FDs returns the open descriptors of process pid and what each is open on, as
// the links in /proc/PID/fd say: "socket:[4711]", "pipe:[4712]", "/dev/null".
func FDs(pid int) (map[int]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("procs: descriptors of process %d: %w", pid, err)
	}
	fds := map[int]string{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("procs: %s holds %q, not a number", dir, e.Name())
		}
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			fds[fd] = target
		case !errors.Is(err, fs.ErrNotExist): // closed since; so is the one that read the directory
			return nil, fmt.Errorf("procs: descriptors of process %d: %w", pid, err)
		}
	}
	return fds, nil
}

// Freeze stops process pid with SIGSTOP and waits until each of its threads has
// stopped, after which it accepts no connection and answers none. SIGCONT or
// SIGKILL ends that. The error is ctx's, wrapped, or says that there is no such
// process.
func Freeze(ctx context.Context, pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("procs: stopping process %d: %w", pid, err)
	}
	// Only a parent is told that a process has stopped, so others must look.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		stopped, err := allStopped(pid)
		if stopped || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("procs: waiting for process %d to stop: %w", pid, context.Cause(ctx))
		}
	}
}

func allStopped(pid int) (bool, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/stat", pid))
	if err != nil {
		return false, err
	}
	alive := false
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended since
		}
		p, err := parseStat(line)
		if err != nil {
			return false, err
		}
		switch p.State {
		case 'T', 't':
			alive = true
		default:
			if !ended(p.State) {
				return false, nil
			}
		}
	}
	if !alive {
		return false, fmt.Errorf("procs: process %d has ended: %w", pid, unix.ESRCH)
	}
	return true, nil
}

// Peers returns the addresses of the other ends of the established TCP connections
// that process pid has a descriptor of, in the form of net.Addr.String: for a
// worker, its clients. They fit ExceptAt of package load's Result. Connections that nobody
// has accepted yet belong to no process and are not among them.
//
// The answer is exact only while the process is stopped, see [Freeze].
func Peers(pid int) (map[string]bool, error) {
	fds, err := FDs(pid)
	if err != nil {
		return nil, err
	}
	sockets := map[string]bool{}
	for _, target := range fds {
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	peers := map[string]bool{}
	// The kernel makes the table up piece by piece and may leave a connection out
	// when others come and go meanwhile. Two looks will not miss the same one.
	for range 2 {
		for _, table := range []string{"tcp", "tcp6"} {
			path := fmt.Sprintf("/proc/%d/net/%s", pid, table)
			if err := addPeers(peers, path, sockets); err != nil {
				return nil, err
			}
		}
	}
	return peers, nil
}

func addPeers(peers map[string]bool, path string, sockets map[string]bool) error {
	return eachLine(path, func(line string) error {
		s, err := parseTCP(line)
		if err == nil && s.state == tcpEstablished && sockets[s.inode] {
			peers[s.remote.String()] = true
		}
		return err
	})
}

// eachLine reads a table of the network's, which has a heading.
func eachLine(path string, do func(line string) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(path, "6") {
		return nil // a kernel without IPv6
	} else if err != nil {
		return fmt.Errorf("procs: sockets: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() {
		if err := do(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// ReapAll waits until this process has no children left, reaping each that ends,
// also those it got as [Subreaper]: wait4(2) says ECHILD. When ctx ends before, the
// error lists who is left.
//
// It takes the exit status from everybody else who waits, such as exec.Cmd.Wait:
// call it when those have returned.
func ReapAll(ctx context.Context) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD) // before the first look, so that no end is missed
	defer signal.Stop(ended)
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil)
		switch {
		case err == unix.ECHILD:
			return nil
		case err == unix.EINTR || err == nil && pid > 0:
			continue
		case err != nil:
			return fmt.Errorf("procs: wait4: %w", err)
		}
		select {
		case <-ended:
		case <-ctx.Done():
			left, err := Descendants(os.Getpid())
			if err != nil {
				return err
			}
			var list strings.Builder
			for _, p := range left {
				fmt.Fprintf(&list, "\n  %v", p)
			}
			return fmt.Errorf("procs: %w with %d processes left:%s", context.Cause(ctx), len(left), list.String())
		}
	}
}
