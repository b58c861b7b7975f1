package handover_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
)

// controlled is a service with a control socket, at a path short enough for one.
func controlled(t *testing.T, workers int, env ...string) (s *service, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	return startService(t, workers, append([]string{"TEST_CONTROL=" + path, "TEST_PROBATION=100ms"}, env...)...), path
}

// asking asks for an upgrade, and reads nothing.
func asking(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(c, "POST /v1/upgrade HTTP/1.1\r\nHost: handover\r\nContent-Length: 0\r\n\r\n")
	return c
}

// result reads all of an answer and returns the last event.
func result(t *testing.T, c net.Conn) (last control.Event) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var ev control.Event
		err := dec.Decode(&ev)
		switch {
		case errors.Is(err, io.EOF):
			return last
		case err != nil:
			t.Fatal(err)
		case last.Result != "":
			t.Errorf("%+v after %+v", ev, last)
		}
		last = ev
	}
}

// TestWatchers: who has asked for an upgrade is told how it ends, whenever he reads. Who
// has gone holds up nobody. All who ask during one get the next.
func TestWatchers(t *testing.T) {
	s, path := controlled(t, 2)
	for generation := 2; generation < 6; generation++ {
		from := s.mark()
		slow, gone := asking(t, path), asking(t, path)
		gone.Close()
		if ev := result(t, asking(t, path)); ev.Result != control.Done {
			t.Errorf("%+v", ev)
		}
		if _, err := s.waitFrom(from, has(`msg="generation serves"`)); err != nil {
			t.Fatal(err)
		}
		if ev := result(t, slow); ev.Result != control.Done || ev.Generation < generation {
			t.Errorf("%+v", ev)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	s.stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the control socket is left: %v", err)
	}
}

// TestStopTellsWatchers: the service ends before an upgrade does.
func TestStopTellsWatchers(t *testing.T) {
	s, path := controlled(t, 1)
	s.replace(func(tmp string) error {
		return os.WriteFile(tmp, []byte("#!/bin/sh\necho hanging\nsleep 1000\n"), 0o755)
	})
	c := asking(t, path)
	s.await(has("hanging"))
	s.stop()
	if ev := result(t, c); ev.Result != control.Failed || ev.Reason == "" {
		t.Errorf("%+v", ev)
	}
}
