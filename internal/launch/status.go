//go:build unix

package launch

import "syscall"

// StatusOf is what wait4(2) has told.
func StatusOf(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Known: true, Code: -1, Signal: int(ws.Signal()), Core: ws.CoreDump()}
	}
	return Status{Known: true, Code: ws.ExitStatus()}
}
