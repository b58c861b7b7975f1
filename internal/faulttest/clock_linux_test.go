package faulttest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

var clockRows = []row{{
	name: "clock-jumps", long: true, fault: "the time of day jumps in every process, by up to ten years, again and again; and the parent is killed",
	says:  []saying{{byLog, `the parent is gone: another one is started`}},
	costs: "nothing: no worker is too old before its time, none has to wait, and what drains has its time",
	more:  func(*service) []string { return []string{"--max-age", "1h"} },
	start: (*service).jumps,
	begin: (*service).dieBetweenJumps,
}}

// jumping is where the command was built whose time of day jumps: see testdata/jumps.
var jumping = sync.OnceValues(func() (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for _, file := range []string{"jumps.go", "jumps_amd64.s"} {
		overlay["Replace"][filepath.Join(root, "cmd/handover", file)] = filepath.Join(root, "internal/faulttest/testdata/jumps", file)
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	path := command + "-jumps"
	if err := os.WriteFile(path+".json", text, 0o644); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-overlay", path+".json", "-o", path, "github.com/handover-go/handover/cmd/handover").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// jumps puts that command in the program's place, each time as another file, so that the anchor
// becomes one of it, too.
func (s *service) jumps() {
	s.t.Helper()
	if runtime.GOARCH != "amd64" {
		s.t.Skip("testdata/jumps is for amd64")
	}
	path, err := jumping()
	if err != nil {
		s.t.Fatal(err)
	}
	s.put(func(tmp string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(tmp, b, 0o755)
	})
}

// dieBetweenJumps kills the parent, again and again: by the clock of the next one it may be earlier
// than the workers began, or ten years later, and then it jumps once more.
func (s *service) dieBetweenJumps() (end func()) {
	s.t.Helper()
	s.until(s.wrongTime)
	s.jumps() // for the next upgrade
	before := slices.Sorted(slices.Values(s.serving()))
	for range 6 {
		parent := s.parent()
		if err := syscall.Kill(parent, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		s.until(func() string {
			st, _, err := s.control.Status(s.t.Context())
			if err == nil && st.Pid == parent {
				return "it lives"
			}
			return text(err)
		})
		s.settles()
		for range 5 { // the parent looks again and again
			s.until(s.wrongTime)
			s.status()
			s.until(func() string {
				if s.wrongTime() == "" {
					return "by the worker's clock it is always another year"
				}
				return ""
			})
			s.status()
		}
	}
	if now := slices.Sorted(slices.Values(s.serving())); !slices.Equal(now, before) {
		s.t.Errorf("workers %v were there, now %v are", before, now)
	}
	return func() {
		s.t.Helper()
		for _, wrong := range []string{"has reached a limit", "its slot waits", "is late", "does not end", "roll stops"} {
			if strings.Contains(s.said(), wrong) {
				s.t.Errorf("the log says %q", wrong)
			}
		}
	}
}

// wrongTime says what is the matter with a worker by whose clock it is not another year: no time
// jumps there.
func (s *service) wrongTime() string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.addr)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err == nil && time.Since(at).Abs() < 365*24*time.Hour {
		err = fmt.Errorf("by a worker's clock it is %v", at)
	}
	return text(err)
}
