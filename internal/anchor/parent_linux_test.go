package anchor

import (
	"bufio"
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
)

// parentMain is a process that does what the test says. It ends with the test.
func parentMain() {
	extra := strangeFiles()
	sigs, stops := make(chan os.Signal, 64), make(chan os.Signal, 64)
	signal.Notify(sigs, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	signal.Notify(stops, syscall.SIGINT, syscall.SIGTERM)
	conn, err := net.Dial("unix", os.Getenv(envControl))
	if err != nil {
		slog.Error("no test to talk to", "error", err)
		os.Exit(98)
	}
	fmt.Fprintf(conn, "hello %d %s\n", os.Getpid(), extra)
	lines := make(chan string)
	go func() {
		sc := bufio.NewScanner(conn)
		for sc.Scan() {
			lines <- sc.Text()
		}
		os.Exit(99)
	}()
	children := map[int]*launch.Process{}
	for {
		select {
		case sig := <-sigs:
			fmt.Fprintln(conn, "signal", unix.SignalName(sig.(syscall.Signal)))
		case sig := <-stops:
			fmt.Fprintln(conn, "signal", unix.SignalName(sig.(syscall.Signal)))
		case line := <-lines:
			verb, arg, _ := strings.Cut(line, " ")
			if answer := act(verb, arg, children); answer != "" {
				fmt.Fprintln(conn, answer)
			}
		}
	}
}

func act(verb, arg string, children map[int]*launch.Process) string {
	n, _ := strconv.Atoi(arg)
	switch verb {
	case "notify":
		err := sdnotify.Send(strings.Split(arg, "|")...)
		if err == nil {
			err = sdnotify.Barrier(patience)
		}
		if err != nil {
			return err.Error()
		}
		return "notified"
	case "say": // without waiting for the anchor
		_ = sdnotify.Send(strings.Split(arg, "|")...)
		return "said"
	case "bye": // a last word, with which it exits
		_ = sdnotify.Send(arg)
		os.Exit(0)
	case "last": // the same, and dies
		_ = sdnotify.Send(arg)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "store": // descriptors, in a notification that nobody asked for
		return fmt.Sprintf("stored %v", storeMany(n))
	case "full": // ask how a process has ended, by a pipe that is full, and blocks whoever writes to it
		return fmt.Sprintf("asked %v", askFull(arg))
	case "user":
		return fmt.Sprintf("user %v", syscall.Setuid(n))
	case "bind": // a socket under a name, and have it stored
		return fmt.Sprintf("bound %v", bind(arg))
	case "passed":
		return passedNames()
	case "spawn":
		path, ok := strings.CutPrefix(arg, "path=")
		if !ok {
			path = launch.Self
		}
		p, err := launch.Start(launch.Spec{Path: path, Args: os.Args, Env: append(os.Environ(), arg), Fds: []int{0, 1, 2}})
		if err != nil {
			return err.Error()
		}
		children[p.Pid] = p
		return fmt.Sprintf("spawned %d", p.Pid)
	case "reap":
		return children[n].Wait().String()
	case "env":
		return cmp.Or(os.Getenv(arg), "-")
	case "link":
		to, _ := os.Readlink("/proc/self/fd/" + arg)
		return to
	case "receive":
		if pid, ok := os.LookupEnv("LISTEN_PID"); ok {
			return "LISTEN_PID=" + pid
		}
		Receive()
		list, err := listen.FromSupervisor()
		return fmt.Sprintf("received %v %v", list, err)
	case "group":
		return strconv.Itoa(unix.Getpgrp())
	case "ping":
		return "pong"
	case "exit":
		os.Exit(n)
	case "kill": // itself
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	}
	return "what is " + verb + "?"
}

// bind binds a socket and gives it to the anchor to keep.
func bind(name string) error {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sdnotify.Store(name, f); err != nil {
		return err
	}
	return sdnotify.Barrier(patience)
}

// passedNames are the names and addresses of what this process was started with.
func passedNames() string {
	Receive()
	list, err := listen.FromSupervisor()
	if err != nil {
		return err.Error()
	}
	names := "passed"
	for _, d := range list {
		names += fmt.Sprintf(" %s@%v", d.Name, listen.Addr(d.Fd))
	}
	return names
}

// storeMany sends n descriptors to the anchor.
func storeMany(n int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	fds := make([]int, n)
	to := &unix.SockaddrUnix{Name: os.Getenv(sdnotify.Env)}
	if err := unix.Sendmsg(fd, []byte("FDSTORE=1\nFDNAME=x"), unix.UnixRights(fds...), to, 0); err != nil {
		return err
	}
	return sdnotify.Barrier(patience)
}

// askFull asks the anchor by a pipe into which nothing goes any more.
func askFull(pid string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	for err == nil {
		_ = w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, err = w.Write(make([]byte, 4096))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: os.Getenv(sdnotify.Env)}
	// File.Fd makes it block, for all who have it.
	if err := unix.Sendmsg(fd, []byte(varStatus+"="+pid), unix.UnixRights(int(w.Fd())), to, 0); err != nil {
		return err
	}
	return sdnotify.Barrier(patience)
}

// strangeFiles are the descriptors that this process was started with beyond the
// standard ones and those in LISTEN_FDS, "-" for none. The runtime may have opened its
// own by now.
func strangeFiles() string {
	var links []string
	passed, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := 3 + passed; fd < 100; fd++ {
		link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		own := strings.HasPrefix(link, "anon_inode:[event") || strings.Contains(link, "/cgroup/")
		if err == nil && !own {
			links = append(links, link)
		}
	}
	return strings.Join(append(links, "-"), ",")
}

// pid1Main is the first process of a pid namespace.
func pid1Main() {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount /proc:", err)
		os.Exit(97)
	}
	anchorMain()
}

// stat is a field of /proc/pid/stat: 0 is the state, 4 the terminal (proc(5)).
func stat(pid, field int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	if f := strings.Fields(rest); len(f) > field {
		return f[field]
	}
	return ""
}

// until waits for what another process is about to do and nothing tells.
func until(ok func() bool) bool {
	for limit := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(limit) {
			return false
		}
	}
	return true
}
