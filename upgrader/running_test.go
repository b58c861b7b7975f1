//go:build linux

package upgrader

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ask sends a request to a process's control socket.
func (r *running) ask(ctx context.Context, pid int, path string) ([]byte, error) {
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(r.dir, fmt.Sprint("ctl.", pid)))
		},
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://control"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func (r *running) decode(pid int, path string, v any) {
	r.t.Helper()
	b, err := r.ask(context.Background(), pid, path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		r.t.Fatalf("%s of process %d: %q, %v", path, pid, b, err)
	}
}

func (r *running) stats() (st stats) {
	r.t.Helper()
	r.decode(r.pid, "/stats", &st)
	return st
}

// tryUpgrade asks a process to upgrade and returns its answer.
func (r *running) tryUpgrade(pid int, timeout time.Duration) (a answer) {
	r.t.Helper()
	r.decode(pid, "/upgrade?timeout="+url.QueryEscape(timeout.String()), &a)
	return a
}

// upgrade upgrades the service and waits until the new process decides and the
// old one is gone. It returns the old one's pid.
func (r *running) upgrade() (old int) {
	r.t.Helper()
	old = r.beginUpgrade()
	r.awaitEnd(old)
	return old
}

// beginUpgrade is upgrade without the wait for the old process.
func (r *running) beginUpgrade() (old int) {
	r.t.Helper()
	old = r.pid
	result := make(chan answer, 1)
	go func() {
		var a answer
		b, err := r.ask(context.Background(), old, "/upgrade")
		if err == nil {
			err = json.Unmarshal(b, &a)
		}
		if err != nil {
			a.Err = err.Error()
		}
		result <- a
	}()
	select {
	case a := <-result:
		r.t.Fatalf("not upgraded: %+v", a)
	case n := <-r.notes:
		pid, err := strconv.Atoi(strings.TrimPrefix(n, "MAINPID="))
		if err != nil || pid == old {
			r.t.Fatalf("the service says %q", n)
		}
		r.pid = pid
	case <-time.After(patience):
		r.t.Fatal("the upgrade takes forever")
	}
	if a := <-result; a.Err != "" {
		r.t.Fatalf("not upgraded: %+v", a)
	}
	return old
}

// awaitEnd waits for the end of a process.
func (r *running) awaitEnd(pid int) {
	r.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has been reaped
	}
	defer unix.Close(fd)
	for l := deadline(); !l.passed(); {
		pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(pfd, int(time.Until(l.at()).Milliseconds())); n == 1 {
			return
		}
	}
	r.t.Fatalf("process %d does not end", pid)
}

// stop ends the service and waits until nothing of it is left.
func (r *running) stop() {
	r.t.Helper()
	r.signal(syscall.SIGTERM)
	r.awaitGone()
	if n := signalMarked(r.mark, 0, nil); n > 0 {
		r.t.Errorf("%d processes are left", n)
	}
}

func (r *running) awaitGone() {
	r.t.Helper()
	select {
	case <-r.gone:
	case <-time.After(patience):
		r.t.Fatal("the service does not end")
	}
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := syscall.Kill(r.pid, sig); err != nil {
		r.t.Fatal(err)
	}
}

// client opens a connection and asks for a path. It returns the first line of the
// answer, which is the pid of the process that serves, and the rest to be read.
func (r *running) client(network, addr, path string) (pid int, rest *bufio.Reader) {
	r.t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return r.request(c, path)
}

func (r *running) request(c net.Conn, path string) (pid int, rest *bufio.Reader) {
	r.t.Helper()
	_ = c.SetDeadline(deadline().at())
	fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	rest = bufio.NewReader(resp.Body)
	line, err := rest.ReadString('\n')
	if err == nil {
		pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		r.t.Fatalf("answer %q: %v", line, err)
	}
	return pid, rest
}

// serves checks that the main process is the one that serves.
func (r *running) serves(addr string) {
	r.t.Helper()
	if pid, _ := r.client("tcp", addr, "/"); pid != r.pid {
		r.t.Fatalf("process %d serves, want %d", pid, r.pid)
	}
}

// addr is the address of the socket "http".
func (r *running) addr() string {
	r.t.Helper()
	return r.stats().Addrs["http"]
}

func (r *running) pidFile() string {
	b, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (a answer) is(name string) bool { return slices.Contains(a.Is, name) }

// transcript is what a service prints.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // has room for one
}

func newTranscript() *transcript { return &transcript{grown: make(chan struct{}, 1)} }

func (o *transcript) read(r io.Reader) { _, _ = io.Copy(o, r) }

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.grown <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until the service has printed one of the texts.
func (r *running) await(texts ...string) {
	r.t.Helper()
	printed := func(text string) bool { return strings.Contains(r.out.String(), text) }
	for late := time.After(patience); !slices.ContainsFunc(texts, printed); {
		select {
		case <-r.out.grown:
		case <-late:
			r.t.Fatalf("the service never prints %q", texts)
		}
	}
}

// lines counts the lines of the service's output that are, or begin with, text.
func (r *running) lines(text string) (n int) {
	for line := range strings.Lines(r.out.String()) {
		if strings.HasPrefix(line, text) {
			n++
		}
	}
	return n
}
