//go:build linux

package upgrader

import (
	"cmp"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
)

// patience bounds every wait: a test that fails should not hang.
const patience = 30 * time.Second

type limit time.Time

func deadline() limit         { return limit(time.Now().Add(patience)) }
func (l limit) passed() bool  { return time.Now().After(time.Time(l)) }
func (l limit) at() time.Time { return time.Time(l) }

// until waits for what another process is about to do.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for l := deadline(); !ok(); runtime.Gosched() {
		if l.passed() {
			t.Fatalf("never: %s", what)
		}
	}
}

// site is a directory with a program in it, its settings and what it leaves.
type site struct {
	t       *testing.T
	dir     string
	program string // path that the service is started by
	args    []string
	cwd     string // where it is started, dir by default
	mark    string // in the environment of all its processes
	runs    string // one of the programs, the service by default
	env     []string
	passed  []int  // descriptors 3, … of the first process, whose LISTEN_PID is its own
	taken   string // an address in use
}

func newSite(t *testing.T, set settings) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "up") // a short path: there will be unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if set.Listen == nil {
		set.Listen = []string{"tcp://127.0.0.1:0"}
	}
	s := &site{t: t, dir: dir, program: filepath.Join(dir, "server")}
	s.mark = "UPGRADER_TEST_MARK=" + filepath.Base(dir)
	s.configure(set)
	s.install(s.program)
	return s
}

// configure sets what the next process finds.
func (s *site) configure(set settings) {
	s.t.Helper()
	b, err := json.Marshal(set)
	if err != nil {
		s.t.Fatal(err)
	}
	s.put("settings", b, 0o600)
}

// put replaces a file as a deployment would.
func (s *site) put(name string, content []byte, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	// A process that is forked while the file is open for writing has it open,
	// too, and nobody could execute it.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path+".new", content, mode)
	syscall.ForkLock.RUnlock()
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// install puts the test binary at a path.
func (s *site) install(path string) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	err = os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.Link(exe, path+".new")
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// running is a service: whichever process it is.
type running struct {
	*site
	pid     int
	first   *launch.Process
	notes   chan string
	mu      sync.Mutex
	said    []string   // all notes but barriers
	barrier sync.Mutex // held by a test that lets a BARRIER wait
	stdin   *os.File
	out     *transcript
	gone    chan struct{} // closed when no process has the service's output any more
}

// start starts the service and waits until it serves.
func (s *site) start() *running {
	s.t.Helper()
	r := s.launch()
	r.awaitMain(r.first.Pid)
	return r
}

// launch starts the service.
func (s *site) launch() *running {
	t := s.t
	t.Helper()
	r := &running{site: s, out: newTranscript(), gone: make(chan struct{})}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stopNotes := r.listenForNotes()
	stdin, stdinW, err := os.Pipe()
	must(err)
	outR, outW, err := os.Pipe()
	must(err)
	r.stdin = stdinW
	dir := s.cwd
	if dir == "" {
		dir = s.dir
	}
	env := append(os.Environ(), s.mark, envProgram+"="+cmp.Or(s.runs, "service"), envDir+"="+s.dir, "PWD="+dir,
		"NOTIFY_SOCKET="+filepath.Join(s.dir, "notify"), "GORACE=atexit_sleep_ms=0 halt_on_error=1",
		"GOGC=off", // or it closes what was forgotten
		"GOTRACEBACK=single")
	env = append(env, s.env...)
	fds := make([]int, 3)
	for i, f := range []*os.File{stdin, outW, outW} {
		fds[i], err = launch.Fd(f)
		must(err)
	}
	path, args := s.program, append([]string{s.program}, s.args...)
	if s.passed != nil {
		path, args = "/bin/sh", append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, args...)
		fds = append(fds, s.passed...)
	}
	r.first, err = launch.Start(launch.Spec{Path: path, Args: args, Env: env, Dir: dir, Fds: fds})
	must(err)
	stdin.Close()
	outW.Close()
	waited := make(chan struct{})
	go func() { defer close(waited); r.first.Wait() }()
	go func() { defer close(r.gone); r.out.read(outR); outR.Close() }()
	t.Cleanup(func() {
		r.stdin.Close()
		until(t, "all processes of the service are killed", func() bool { return signalMarked(s.mark, syscall.SIGKILL, nil) == 0 })
		<-waited
		r.first.Close()
		<-r.gone
		stopNotes()
		if t.Failed() {
			out := r.out.String()
			t.Logf("the service's last output:\n%s", out[max(0, len(out)-4000):])
		}
	})
	return r
}

// listenForNotes is the supervisor.
func (r *running) listenForNotes() (stop func()) {
	r.notes = make(chan string)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(r.dir, "notify"), Net: "unixgram"})
	if err != nil {
		r.t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		buf, oob := make([]byte, 4096), make([]byte, 4096)
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			note := string(buf[:n])
			if note != "BARRIER=1" {
				closeRights(oob[:oobn])
				r.heard(note)
				if !strings.HasPrefix(note, "MAINPID=") {
					continue
				}
				select {
				case r.notes <- strings.TrimSuffix(note, "\nREADY=1"):
				case <-quit:
				}
				continue // a test that holds its answers up still wants to read
			}
			r.barrier.Lock()
			closeRights(oob[:oobn])
			r.barrier.Unlock()
		}
	}()
	return func() { close(quit); conn.Close(); <-done; os.Remove(filepath.Join(r.dir, "notify")) }
}

// closeRights closes the descriptors that came with a note.
func closeRights(oob []byte) {
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		fds, _ := unix.ParseUnixRights(&m)
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// heard keeps what was said, in order.
func (r *running) heard(note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, note)
}

// hears returns so much of that, or less, and forgets it.
func (r *running) hears(n int) (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, r.said = r.said[:min(n, len(r.said))], r.said[min(n, len(r.said)):]
	return list
}

func (r *running) note() string {
	r.t.Helper()
	select {
	case n := <-r.notes:
		return n
	case <-r.gone:
		r.t.Fatal("the service has ended")
	case <-time.After(patience):
		r.t.Fatal("the service says nothing")
	}
	return ""
}

// awaitMain waits for the note that names the main process, which is pid unless
// that is 0.
func (r *running) awaitMain(pid int) {
	r.t.Helper()
	n := r.note()
	got, err := strconv.Atoi(strings.TrimPrefix(n, "MAINPID="))
	if err != nil || got != pid && pid != 0 {
		r.t.Fatalf("the service says %q, want MAINPID=%d", n, pid)
	}
	r.pid = got
}
