//go:build linux

package workerset

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
)

// FuzzEstate: whatever the parent before has written about its workers and their messages, nothing
// panics, and what this one makes of it can be given to the next.
func FuzzEstate(f *testing.F) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	pid := cmd.Process.Pid
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(pidfd) })
	if err := cmd.Wait(); err != nil { // no signal reaches anybody by that pidfd
		f.Fatal(err)
	}
	identity := fmt.Sprintf("web/1/2/4/%d", pid)
	for name, in := range members() {
		ws := in.handedOn()
		st := estateState{Version: 1, Groups: map[string]groupState{"web": {Count: 9, Configured: 1, Restarts: 2, Common: common(), Deaths: deaths()}}, Workers: map[string]workerState{identity: ws}}
		text, err := st.encode()
		if err != nil {
			f.Fatal(name, err)
		}
		f.Add([]byte(text), []byte(`{"router":{"letters":[{"id":1,"files":2}]},"residue":{"`+identity+`":"eyI="}}`))
	}
	f.Add([]byte(`{"groups":{"web":{"count":-1,"deaths":[{}]},"":{}},"workers":{"`+identity+`":{"state":"killing","hungAfter":-9223372036854775808,"drainSignal":-1,"calls":{"0":{}}}}}`), []byte(`{"rest":null}`))
	f.Fuzz(func(t *testing.T, state, post []byte) {
		s, _ := bare(t)
		e := Estate{State: state, Files: map[string]*os.File{}}
		fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		e.Files[kindPidfd+identity] = os.NewFile(uintptr(fd), "pidfd")
		a, b, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		e.Files[kindChannel+identity] = a
		if e.Files[kindCrash+identity], err = os.Open(os.DevNull); err != nil {
			t.Fatal(err)
		}
		letters, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := letters.Write(post); err != nil {
			t.Fatal(err)
		}
		e.Files[namePost] = letters
		s.adopt(e)
		next := estateState{Groups: map[string]groupState{}, Workers: map[string]workerState{}}
		for _, g := range s.groups {
			next.Groups[g.Name] = g.handedOn()
			for _, in := range g.members {
				next.Workers[in.identity()] = in.handedOn()
				_ = in.status()
			}
		}
		text, err := next.encode()
		if err == nil {
			_, err = decode(text)
		}
		if err != nil {
			t.Errorf("%v: %s", err, text)
		}
		close(s.quit)
		s.post.endpoint.Close(nil)
		for _, in := range s.byKey {
			in.close()
		}
		s.wg.Wait()
		s.post.endpoint.Wait()
		s.post.closeFiles()
	})
}
