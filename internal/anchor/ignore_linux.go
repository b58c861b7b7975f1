package anchor

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's structure (sigaction(2)), or the beginning of it: the handler
// comes first, but on MIPS, where an anchor does not change its program.
type sigaction [8]uintptr

// sigIgn is SIG_IGN.
const sigIgn = 1

// ignore makes the kernel ignore the signals, and nobody else know of it: to signal.Ignore
// it happens that a signal whose handler runs already ends the process, as one that nobody
// wants. What it returns puts things back.
func ignore(signals []os.Signal) (undo func()) {
	old := make([]sigaction, len(signals))
	for i, sig := range signals {
		setAction(sig, &sigaction{sigIgn}, &old[i])
	}
	return func() {
		for i, sig := range signals {
			setAction(sig, &old[i], nil)
		}
	}
}

func setAction(sig os.Signal, action, old *sigaction) {
	const setSize = 8 // of the kernel's signal set
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig.(syscall.Signal)),
		uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), setSize, 0, 0)
}
