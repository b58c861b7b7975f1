//go:build !linux

package sdnotify

import (
	"errors"
	"os"
	"syscall"
)

// What a supervisor needs is for Linux.
var (
	ErrNoteTooLong = errors.New("a notification that is too long")
	ErrNoteLost    = errors.New("descriptors of a notification were lost")
	errNoInbox     = errors.New("notifications are received on Linux only")
)

// MaxNote is the longest notification elsewhere.
const MaxNote = 4096

// Inbox receives nothing here.
type Inbox struct{}

func NewInbox() (*Inbox, error)                         { return nil, errNoInbox }
func ResumeInbox(f *os.File) (*Inbox, error)            { f.Close(); return nil, errNoInbox }
func (in *Inbox) Addr() string                          { return "" }
func (in *Inbox) Read() (Note, error)                   { return Note{}, errNoInbox }
func (in *Inbox) Queued() (Note, error, bool)           { return Note{}, nil, false }
func (in *Inbox) Each(take func(Note, error))           {}
func (in *Inbox) Halt()                                 {}
func (in *Inbox) Unhalt()                               {}
func (in *Inbox) SyscallConn() (syscall.RawConn, error) { return nil, errNoInbox }
func (in *Inbox) Close() error                          { return nil }
func (n *Note) Take() []int                             { return nil }
func (n Note) Descriptors() int                         { return 0 }
func (n Note) Done()                                    {}
