package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// house is both ends, in this process.
func house(t *testing.T) (*Door, *Hall) {
	t.Helper()
	report, hear, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	door, err := OpenDoor(report)
	unix.Close(report)
	if err != nil {
		t.Fatal(err)
	}
	hall, err := OpenHall(hear)
	unix.Close(hear)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Close(); hall.Close() })
	return door, hall
}

func file(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

// channel is one end of a pair of stream sockets.
func channel(t *testing.T) *os.File {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(p[0]), Channel)
	t.Cleanup(func() { f.Close(); unix.Close(p[1]) })
	return f
}

// memory is a file in memory.
func memory(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "")
	t.Cleanup(func() { f.Close() })
	return f
}

func opened() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

var who = Report{Group: "web", Slot: 2, ID: 7, Generation: 3, Recipe: "cake"}

func TestReport(t *testing.T) {
	door, hall := house(t)
	mine := channel(t)
	before := opened()
	crash, odd := memory(t), file(t, "odd")
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	err = door.Send(who, map[string]*os.File{Channel: mine, Crash: crash, Stdout: out, "zebra": odd}, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	a, err := hall.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s %d %d %d %s %t %d", a.Group, a.Slot, a.ID, a.Generation, a.Recipe, a.Pid == os.Getpid(), len(a.Opened)); got != "web 2 7 3 cake true 4" {
		t.Error(got)
	}
	for name, f := range map[string]*os.File{Channel: mine, Crash: crash, Stdout: out} {
		one, _ := f.Stat()
		if two, err := a.Opened[name].Stat(); err != nil || !os.SameFile(one, two) {
			t.Errorf("%s is another file (%v)", name, err)
		}
	}
	// What the worker does to its own end does not make the receiver wait.
	out.Fd() // blocking now
	if n, err := a.Opened[Stdout].Read(nil); err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := a.Opened[Stdout].SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
	if n, err := a.Opened[Stdout].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", n, err)
	}
	a.Close()
	if _, ok, err := hall.Queued(); ok {
		t.Errorf("there is more: %v", err)
	}
	for _, f := range []*os.File{crash, odd, out, w} {
		f.Close()
	}
	if after := opened(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// TestBadReports: what is no report closes what came with it, and the next one is read.
func TestBadReports(t *testing.T) {
	door, hall := house(t)
	good := func() map[string]any {
		return map[string]any{"group": "web", "slot": 1, "id": 1, "generation": 1, "pid": os.Getpid(), "files": []string{Channel, Pidfd}}
	}
	with := func(k string, v any) string {
		m := good()
		m[k] = v
		b, _ := json.Marshal(m)
		return string(b)
	}
	number := func(f *os.File) int {
		fd, err := fdOf(f)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	f := channel(t)
	fd, other, mem := number(f), number(file(t, "")), number(memory(t))
	datagram, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(datagram)
	before := opened()
	for _, c := range []struct {
		text string
		fds  []int
		says string
	}{
		{"x", nil, "invalid character"},
		{`"ready"`, nil, "cannot unmarshal"},
		{`{}`, []int{fd}, "it names no worker"},
		{with("slot", 0), []int{fd, fd}, "it names no worker"},
		{with("pid", 1), []int{fd, fd}, "says that it is 1"},
		{with("slot", "x"), []int{fd, fd}, "cannot unmarshal"},
		{with("group", strings.Repeat("x", maxReport)), []int{fd, fd}, "not arrived whole"},
		{with("files", []string{Channel}), []int{fd}, "neither channel nor pidfd"},
		{with("files", []string{Channel, Channel}), []int{fd, fd}, "neither channel nor pidfd"},
		{with("id", 1), []int{fd}, "2 descriptors announced, 1 here"},
		{with("id", 1), nil, "2 descriptors announced, 0 here"},
		{with("id", 1), []int{fd, fd, fd}, "2 descriptors announced, 3 here"},
		{with("slot", math.MaxInt), []int{fd, fd}, "a number over"},
		{with("id", math.MaxInt), []int{fd, fd}, "a number over"},
		{with("generation", math.MaxInt), []int{fd, fd}, "a number over"},
		{with("files", []string{Channel, Pidfd}), []int{other, fd}, "channel: it is of another kind"},
		{with("files", []string{Channel, Pidfd}), []int{datagram, fd}, "channel: it is of another kind"},
		{with("files", []string{Channel, Pidfd, Crash}), []int{fd, fd, other}, "crash: it is of another kind"},
		{with("files", []string{Channel, Pidfd, Stdout}), []int{fd, fd, other}, "stdout: descriptor"},
		{with("files", []string{Channel, Pidfd, Crash, Stderr}), []int{fd, fd, mem, fd}, "stderr: descriptor"},
		{with("files", manyFiles()), slicesOf(fd, 3*maxFiles), "not arrived whole"},
	} {
		var oob []byte
		if c.fds != nil {
			oob = unix.UnixRights(c.fds...)
		}
		var serr error
		_ = door.raw.Control(func(end uintptr) { serr = unix.Sendmsg(int(end), []byte(c.text), oob, nil, 0) })
		if serr != nil {
			t.Fatal(serr)
		}
		a, err := hall.Next()
		if !errors.Is(err, ErrReport) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.60s: %v, not %q", c.text, err, c.says)
		}
		a.Close()
		if after := opened(); after != before {
			t.Fatalf("%.60s: %d descriptors, %d before", c.text, after, before)
		}
	}
	if err := door.Send(who, map[string]*os.File{Channel: f}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	a, err := hall.Next()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

func manyFiles() (list []string) {
	for i := range 3 * maxFiles {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func slicesOf(fd, n int) (list []int) {
	for range n {
		list = append(list, fd)
	}
	return list
}

// TestAbandoned: a worker sees that nobody keeps the home, before and while it waits.
func TestAbandoned(t *testing.T) {
	door, _ := house(t)
	ended := make(chan bool)
	go func() { ended <- door.Abandoned() }()
	door.Leave()
	if <-ended {
		t.Error("somebody keeps it")
	}
	door, hall := house(t)
	go func() { ended <- door.Abandoned() }()
	fd, err := fdOf(door.f)
	if err != nil || !Kept(fd) {
		t.Errorf("somebody keeps it (%v)", err)
	}
	hall.Close()
	if !<-ended || Kept(fd) {
		t.Error("nobody keeps it")
	}
	err = door.Send(who, map[string]*os.File{Channel: channel(t)}, time.Now().Add(time.Minute))
	if !errors.Is(err, ErrNobody) {
		t.Error(err)
	}
}

// TestHalt: who stops to hear leaves what comes to others.
func TestHalt(t *testing.T) {
	door, hall := house(t)
	ended := make(chan error)
	next := func() { a, err := hall.Next(); a.Close(); ended <- err }
	go next()
	hall.Halt()
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := door.Send(who, map[string]*os.File{Channel: channel(t)}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	hall.Unhalt()
	go next()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestFull: a report waits for room, up to its deadline.
func TestFull(t *testing.T) {
	door, hall := house(t)
	f, n := channel(t), 0
	var err error
	for err == nil {
		if err = door.Send(who, map[string]*os.File{Channel: f}, time.Now().Add(20*time.Millisecond)); err == nil {
			n++
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || n < 50 {
		t.Fatalf("after %d reports: %v", n, err)
	}
	ended := make(chan error)
	go func() { ended <- door.Send(who, map[string]*os.File{Channel: f}, time.Now().Add(time.Minute)) }()
	for range n + 1 {
		a, err := hall.Next()
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNotAHome(t *testing.T) {
	fd, err := fdOf(file(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	before := opened()
	for _, fd := range []int{fd, 999} {
		if d, err := OpenDoor(fd); err == nil {
			t.Error(d)
		}
		if h, err := OpenHall(fd); err == nil {
			t.Error(h)
		}
	}
	if after := opened(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"group":"web","slot":1,"id":1,"generation":1,"pid":5,"recipe":"x","files":["channel","pidfd"]}`))
	f.Add([]byte(`{"pid":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b, 5)
		if err == nil && (r.Pid != 5 || r.Group == "" || r.Slot < 1 || r.ID < 1 || r.Generation < 1) {
			t.Errorf("%q: %+v", b, r)
		}
	})
}
