package sdtest

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/sdnotify"
)

//go:embed boot.sh
var script string

const (
	bootTimeout = 60 * time.Second // on a machine that is very busy
	stopTimeout = 10 * time.Second // what has not ended in order by then is killed
)

// boot starts the systemd that is in the directory root, and returns when it has
// booted. The machine's cgroup and directory have that name.
func boot(root, cgroups, name string) (m *Machine, err error) {
	m = &Machine{base: filepath.Join(baseDir, name), cgroup: filepath.Join(cgroups, name),
		installed: map[string]time.Time{}, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = fmt.Errorf("boot the systemd of %s: %w", root, errors.Join(err, m.remove()))
		}
	}()
	for _, dir := range []string{m.cgroup, m.base, filepath.Join(m.base, "root"), m.shared()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return m, err
		}
	}
	inbox, err := sdnotify.NewInbox()
	if err != nil {
		return m, err
	}
	ready := make(chan error, 1)
	var waiting sync.WaitGroup
	waiting.Go(func() { ready <- booted(inbox) })
	defer func() {
		inbox.Halt()
		waiting.Wait()
		inbox.Close() // what is sent later is refused, and PID 1 does not wait
	}()

	var output bytes.Buffer // to be read when it has ended
	started := make(chan error, 1)
	go m.run(root, inbox.Addr(), &output, started)
	if err := <-started; err != nil {
		return m, err
	}
	timeout := time.NewTimer(bootTimeout)
	defer timeout.Stop()
	select {
	case err = <-ready:
	case <-timeout.C:
		err = fmt.Errorf("not up within %v", bootTimeout)
	case <-m.ended:
		return m, fmt.Errorf("it ended: %s", strings.TrimSpace(output.String()))
	}
	if err == nil {
		m.Version, err = m.version()
	}
	if err != nil {
		m.kill()
	}
	return m, err
}

// booted waits until PID 1 says that everything is up: systemd(1), NOTIFY_SOCKET.
func booted(inbox *sdnotify.Inbox) error {
	for {
		note, err := inbox.Read()
		note.Done()
		if err != nil || note.Says("READY", "1") {
			return err
		}
	}
}

// run is the process, from its start to its end.
func (m *Machine) run(root, ready string, output *bytes.Buffer, started chan<- error) {
	defer close(m.ended)
	// The machine dies with the thread that has started it, which is this one.
	runtime.LockOSThread()
	cgroup, err := os.Open(m.cgroup)
	if err != nil {
		started <- err
		return
	}
	defer cgroup.Close()
	cmd := exec.Command("/bin/sh", "-euc", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SCRIPT=" + script, "ROOT=" + root, "BASE=" + m.base, "READY=" + ready}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
		Setsid: true, // a terminal's Ctrl-C is not for it
	}
	if err = cmd.Start(); err == nil {
		m.pid = cmd.Process.Pid
	}
	started <- err
	if err == nil {
		_ = cmd.Wait() // how it ends says nothing
	}
}

// stop ends the machine in order, and removes what it has had.
func (m *Machine) stop() error {
	if m.pid != 0 {
		const poweroff = 34 + 4 // SIGRTMIN+4, systemd(1)
		_ = unix.Kill(m.pid, poweroff)
		select {
		case <-m.ended:
		case <-time.After(stopTimeout):
			m.kill()
			return errors.Join(fmt.Errorf("systemd %d did not stop within %v", m.Version, stopTimeout), m.remove())
		}
	}
	return m.remove()
}

// kill ends PID 1, and so, before it is gone, all processes of its namespace.
func (m *Machine) kill() {
	select {
	case <-m.ended:
		return
	default:
	}
	_ = unix.Kill(m.pid, unix.SIGKILL)
	<-m.ended
}

func (m *Machine) remove() error {
	return errors.Join(removeCgroup(m.cgroup), os.RemoveAll(m.base))
}

// removeCgroup removes a cgroup and those in it, which have no processes any more.
func removeCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = unix.Rmdir(dirs[i])
	}
	if err != nil {
		return fmt.Errorf("remove the cgroup %s: %w", dir, err)
	}
	return nil
}
