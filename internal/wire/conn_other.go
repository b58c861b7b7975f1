//go:build !linux && !darwin && !freebsd

package wire

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

var errNoChannel = fmt.Errorf("wire: no channel on %s, which cannot pass descriptors between processes this way: run the program without a parent: %w",
	runtime.GOOS, errors.ErrUnsupported)

// Pair fails: this system has no channel.
func Pair() (a, b *os.File, err error) { return nil, nil, errNoChannel }

// Conn cannot be had on this system.
type Conn struct{}

// NewConn closes f and fails: this system has no channel.
func NewConn(f *os.File) (*Conn, error) { return Resume(f, Residue{}) }

// Resume closes f and r and fails: this system has no channel.
func Resume(f *os.File, r Residue) (*Conn, error) {
	r.Close()
	if f != nil {
		f.Close()
	}
	return nil, errNoChannel
}

// SetMaxLine does nothing.
func (c *Conn) SetMaxLine(n int) {}

// Read fails.
func (c *Conn) Read() ([]byte, error) { return nil, errNoChannel }

// TakeFiles fails.
func (c *Conn) TakeFiles(n int) ([]*os.File, error) { return nil, errNoChannel }

// Pending returns 0.
func (c *Conn) Pending() int { return 0 }

// Arrived returns -1.
func (c *Conn) Arrived() int { return -1 }

// Send fails.
func (c *Conn) Send(v any, files ...*os.File) error { return errNoChannel }

// TrySend fails.
func (c *Conn) TrySend(v any, files ...*os.File) error { return errNoChannel }

// SetReadDeadline fails.
func (c *Conn) SetReadDeadline(t time.Time) error { return errNoChannel }

// SetWriteDeadline fails.
func (c *Conn) SetWriteDeadline(t time.Time) error { return errNoChannel }

// Halt fails.
func (c *Conn) Halt() (Residue, error) { return Residue{}, errNoChannel }

// Unhalt closes r.
func (c *Conn) Unhalt(r Residue) { r.Close() }

// SyscallConn fails.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return nil, errNoChannel }

// Close returns nil.
func (c *Conn) Close() error { return nil }
