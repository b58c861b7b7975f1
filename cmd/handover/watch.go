//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/handover-go/handover/internal/control"
)

// every is how often a status is shown.
const every = time.Second

// watcher shows a status again and again.
type watcher struct {
	client *control.Client
	last   view
	err    error
}

// look asks for the status. That nobody answers is shown, too: somebody may come.
func (w *watcher) look(ctx context.Context) {
	st, _, err := w.client.Status(ctx)
	w.err = err
	if err != nil {
		return
	}
	v := view{st: st, now: time.Now()}
	if w.last.st.Service != "" {
		v.before, v.beforeAt = &w.last.st, w.last.now
	}
	w.last = v
}

func (w *watcher) lines(s style) []string {
	if w.err != nil {
		return []string{s.line(s.paint(red, firstLine(w.err.Error())))}
	}
	w.last.style = s
	return w.last.lines()
}

// watch shows the status until ctx ends, or q is typed.
func watch(ctx context.Context, client *control.Client) error {
	w := &watcher{client: client}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return w.onScreen(ctx)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		w.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if _, err := fmt.Println(strings.Join(append(w.lines(style{}), ""), "\n")); err != nil {
			return &exit{1, err}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// What a terminal is told.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// onScreen shows it in place, on the alternate screen.
func (w *watcher) onScreen(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := readKeys(os.Stdin, cancel)
	if err != nil {
		return &exit{1, err}
	}
	defer stop()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	fmt.Print(enterScreen)
	defer fmt.Print(leaveScreen)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ask := true; ; {
		if ask {
			w.look(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		s := styleOf(os.Stdout)
		_, height, _ := term.GetSize(int(os.Stdout.Fd()))
		lines := append([]string{s.line(s.paint(dim, time.Now().Format("15:04:05")+"  q ends")), ""}, w.lines(s)...)
		if _, err := io.WriteString(os.Stdout, frame(lines, height)); err != nil {
			return &exit{1, err}
		}
		select {
		case <-tick.C:
			ask = true
		case <-resized:
			ask = false
		case <-ctx.Done():
			return nil
		}
	}
}

// frame draws lines over those that are there. Of more than fit, it is said how many there
// are; height 0 is no limit.
func frame(lines []string, height int) string {
	if height > 0 && len(lines) > height {
		more := len(lines) - (height - 1)
		lines = append(lines[:height-1:height-1], fmt.Sprintf("… %d more lines", more))
	}
	const home, restOfLine, restOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	return home + strings.Join(lines, restOfLine+"\r\n") + restOfLine + restOfScreen
}

// readKeys calls quit when q or Ctrl-C is typed, if in is a terminal, which gives keys as they
// are typed until stop is called.
func readKeys(in *os.File, quit func()) (stop func(), err error) {
	fd := int(in.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	var wake [2]int
	if err := unix.Pipe(wake[:]); err != nil {
		return nil, os.NewSyscallError("pipe", err)
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(wake[0]), unix.Close(wake[1]))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) || fds[1].Revents != 0 {
				return
			}
			var key [16]byte
			n := 0
			if fds[0].Revents != 0 {
				if n, err = unix.Read(fd, key[:]); n <= 0 && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
					quit() // the terminal is gone
					return
				}
			}
			if strings.ContainsAny(string(key[:max(0, n)]), "qQ\x03") {
				quit()
			}
		}
	}()
	return func() {
		unix.Close(wake[1])
		<-done
		unix.Close(wake[0])
		_ = term.Restore(fd, before)
	}, nil
}
