//go:build !linux

package launch

import (
	"os"
	"syscall"
)

// Supported reports whether this system can do what this package is for.
const Supported = false

// Process is a process that was started or taken over. Nothing makes one here.
type Process struct{ Pid int }

func Start(Spec) (*Process, error)                 { return nil, ErrUnsupported }
func Adopt(int, *os.File) (*Process, error)        { return nil, ErrUnsupported }
func Follow(int) (*Process, error)                 { return nil, ErrUnsupported }
func (p *Process) Pidfd() *os.File                 { return nil }
func (p *Process) Signal(sig syscall.Signal) error { return ErrUnsupported }
func (p *Process) Wait() Status                    { return Status{Code: -1} }
func (p *Process) Done() <-chan struct{}           { return nil }
func (p *Process) Close() error                    { return nil }

func BecomeSubreaper() error           { return ErrUnsupported }
func ReapOrphans(stop <-chan struct{}) { <-stop }
func OwnDescriptors()                  {}
func Children() []int                  { return nil }
func Descends(pid, ancestor int) bool  { return false }

// Fd is f's descriptor number.
func Fd(f *os.File) (int, error) { return int(f.Fd()), nil }
func signalName(n int) string    { return syscall.Signal(n).String() }
func setComm(string)             {}
