//go:build linux || darwin || freebsd

package wire

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// longAgo is a deadline that ends every wait.
var longAgo = time.Unix(1, 0)

// Halt stops reading, so that another process can go on with the connection: a
// Read that waits returns ErrHalted, and so does every later one. Halt returns
// when no Read is under way, with what was read from the socket and not yet
// delivered; the caller owns it, and gives it to Resume or back to Unhalt.
//
// It fails, and reading goes on as before, on a Conn that is closed, halted
// already, or that could not be handed on without harm: reading has failed for
// good, or a line is half written (ErrFull while its Send waits, ErrBroken when
// it has failed). Sending is otherwise not stopped: before the other process
// sends, the caller's own Sends must have ended. The end of the stream is no
// error here; the next reader meets it too.
//
// Halt waits for a running Read only, so it may be called by the goroutine that
// reads. Called by another one, it can come between a Read and the TakeFiles
// for that line, whose descriptors are then among the rest.
func (c *Conn) Halt() (Residue, error) {
	if err := c.beginHalt(); err != nil {
		return Residue{}, fmt.Errorf("wire: halt: %w", err)
	}
	c.rmu.Lock() // Read has returned
	defer c.rmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.rerr
	if c.closed {
		err = os.ErrClosed
	}
	if err != nil {
		c.endHalt()
		return Residue{}, fmt.Errorf("wire: halt: %w", err)
	}
	r := Residue{Bytes: c.lines.take(), Files: c.files}
	c.files = nil
	return r, nil
}

// Unhalt takes back what Halt returned, and Read works again. It owns r.Files
// from then on; on a Conn that is closed or not halted it closes them.
func (c *Conn) Unhalt(r Residue) {
	if !errors.Is(c.stopped(), ErrHalted) {
		r.Close()
		return
	}
	// A halted Conn lets no Read wait, so this lock is had at once.
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.halted || c.closed {
		r.Close()
		return
	}
	c.lines.put(r.Bytes)
	c.files = append(r.Files, c.files...)
	c.endHalt()
}

// beginHalt makes a waiting Read return.
func (c *Conn) beginHalt() error {
	if err := c.lineOut(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return os.ErrClosed
	case c.halted:
		return ErrHalted
	}
	c.halted = true
	return c.f.SetReadDeadline(longAgo) // fails only on a closed file
}

// endHalt lets Read work again. It is called with mu held.
func (c *Conn) endHalt() {
	c.halted = false
	_ = c.f.SetReadDeadline(c.rdeadline) // fails only on a closed file
}

// lineOut says whether the last line that was sent is out whole.
func (c *Conn) lineOut() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.midLine {
		return fmt.Errorf("%w: a line is half written", ErrFull)
	}
	return c.werr
}
