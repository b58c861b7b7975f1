package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/launch"
)

// watched is a service that is in another generation each time that it is asked.
type watched struct {
	control.Service
	asked atomic.Int32
}

func (w *watched) Status(context.Context) (control.Status, error) {
	st := busy()
	st.Generation = int(w.asked.Add(1))
	return st, nil
}

// terminal is a command that runs in a terminal of its own.
type terminal struct {
	t      *testing.T
	master *os.File
	fd     int
	cmd    *exec.Cmd
	before unix.Termios // before the command began
}

// inTerminal runs the command in a terminal of that size.
func inTerminal(t *testing.T, width, height uint16, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	_ = master.SetDeadline(time.Now().Add(30 * time.Second))
	fd, err := launch.Fd(master)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, fd: fd}
	term.resize(width, height)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term.before = term.mode()
	term.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{"handover"}, args...), Env: append(os.Environ(), "TERM=xterm", "GORACE=atexit_sleep_ms=0"),
		Stdin: slave, Stdout: slave, Stderr: slave, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.cmd.Process.Kill(); _ = term.cmd.Wait() })
	return term
}

func (term *terminal) resize(width, height uint16) {
	term.t.Helper()
	if err := unix.IoctlSetWinsize(term.fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) mode() unix.Termios {
	term.t.Helper()
	m, err := unix.IoctlGetTermios(term.fd, unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	return *m
}

// await reads until all of these were shown, one after the other, and returns that.
func (term *terminal) await(texts ...string) string {
	term.t.Helper()
	var got strings.Builder
	for buf := make([]byte, 4096); ; {
		rest, all := got.String(), true
		for _, text := range texts {
			_, after, ok := strings.Cut(rest, text)
			rest, all = after, all && ok
		}
		if all {
			return got.String()
		}
		n, err := term.master.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			term.t.Fatalf("%v; %q was not shown, but %q", err, texts, got.String())
		}
	}
}

// TestWatchTerminal: the status is drawn in place, in colours, as large as the terminal is,
// and when it ends, by a key, Ctrl-C or TERM, the terminal is as it was.
func TestWatchTerminal(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := control.NewServer(&watched{}, slog.New(slog.DiscardHandler))
	srv.Serve(ln)
	t.Cleanup(srv.Close)
	for name, quit := range map[string]func(*terminal) error{
		"q":      func(term *terminal) error { _, err := term.master.WriteString("q"); return err },
		"Ctrl-C": func(term *terminal) error { _, err := term.master.WriteString("\x03"); return err },
		"TERM":   func(term *terminal) error { return term.cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			term := inTerminal(t, 80, 20, "status", "--watch", "--control", path)
			shown := term.await(enterScreen, "\x1b[H", "q ends", "\x1b[1mshop\x1b[0m: generation ", "\x1b[J")
			if !strings.Contains(shown, "more lines") {
				t.Errorf("20 lines are not enough, and yet: %q", shown)
			}
			if term.mode() == term.before {
				t.Error("keys are not given as they are typed")
			}
			term.await("\x1b[H", "shop\x1b[0m: generation ", "\x1b[J") // again
			term.resize(200, 100)
			shown = term.await("says?good bye\x1b[K\r\n", "drains for ", "\x1b[J")
			if !strings.Contains(shown, "RESTARTS") {
				t.Errorf("there is room for all, and yet: %q", shown)
			}
			if _, err := term.master.WriteString("x"); err != nil { // which means nothing
				t.Fatal(err)
			}
			if err := quit(term); err != nil {
				t.Fatal(err)
			}
			term.await(leaveScreen)
			if err := term.cmd.Wait(); err != nil {
				t.Error(err)
			}
			if term.mode() != term.before {
				t.Errorf("the terminal was %+v, and is %+v", term.before, term.mode())
			}
		})
	}
}

// TestNoColour: who does not want colours gets none.
func TestNoColour(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	term := inTerminal(t, 80, 20, "status", "--watch", "--control", "nowhere")
	shown := term.await(enterScreen, "q ends", "no service answers at nowhere", "\x1b[J")
	if strings.Contains(shown, "\x1b[31m") || strings.Contains(shown, "\x1b[2m") {
		t.Errorf("%q", shown)
	}
	if _, err := term.master.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	term.await(leaveScreen)
}

// TestRunInTerminal: in a terminal the log is for people, in colours, over an upgrade, too;
// Ctrl-C stops it.
func TestRunInTerminal(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	term := inTerminal(t, 120, 40, "run", "--name", "shop", "--workers", "1", "--control", "none", "--listen", "http=unix://"+dir+"/s")
	term.await("generation serves", "drain and stop")
	if err := term.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	shown := term.await("upgrade begins")
	// The new parent, and the old worker.
	for _, text := range []string{"\x1b[32mINFO \x1b[0m generation serves", "\x1b[32mINFO \x1b[0m drained"} {
		if !strings.Contains(shown, text) {
			shown += term.await(text)
		}
	}
	if strings.Contains(shown, "level=") || strings.Contains(shown, "msg=") {
		t.Errorf("this is for machines: %q", shown)
	}
	if _, err := term.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	term.await("\x1b[32mINFO \x1b[0m stopped", "\r\n")
	if err := term.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
