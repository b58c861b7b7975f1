//go:build !linux

package moving

import "time"

// Pair returns ErrUnsupported.
func Pair() (give, take int, err error) { return -1, -1, ErrUnsupported }

// Queue can't be had here.
type Queue struct{}

// Open returns ErrUnsupported.
func Open(give, take int) (*Queue, error) { return nil, ErrUnsupported }

func (q *Queue) Close()                                           {}
func (q *Queue) Send(fd int, m Message) error                     { return ErrUnsupported }
func (q *Queue) AwaitRoom(deadline time.Time) (room, waited bool) { return false, false }
func (q *Queue) Await() (waited bool, err error)                  { return false, ErrUnsupported }
func (q *Queue) TryReceive(Kind) (Message, int, error)            { return Message{}, -1, ErrUnsupported }
func (q *Queue) Next() uint64                                     { return 0 }
func (q *Queue) Rotate() error                                    { return ErrUnsupported }
func (q *Queue) SetDeadline(t time.Time)                          {}
func (q *Queue) Pending() bool                                    { return false }
