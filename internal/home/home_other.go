//go:build !linux

package home

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// errUnsupported: there is a home on Linux only.
var errUnsupported = fmt.Errorf("home: workers don't outlive their parent on this system: %w", errors.ErrUnsupported)

// Pair fails here.
func Pair() (report, hear int, err error) { return -1, -1, errUnsupported }

// Kept is false here.
func Kept(int) bool { return false }

// Door is a worker's end.
type Door struct{}

// OpenDoor fails here.
func OpenDoor(int) (*Door, error) { return nil, errUnsupported }

// Close does nothing.
func (*Door) Close() error { return nil }

// Send fails here.
func (*Door) Send(Report, map[string]*os.File, time.Time) error { return ErrNobody }

// Abandoned is true here.
func (*Door) Abandoned() bool { return true }

// Leave does nothing.
func (*Door) Leave() {}

// Hall is a parent's end.
type Hall struct{}

// OpenHall fails here.
func OpenHall(int) (*Hall, error) { return nil, errUnsupported }

// Close does nothing.
func (*Hall) Close() error { return nil }

// Halt does nothing.
func (*Hall) Halt() {}

// Unhalt does nothing.
func (*Hall) Unhalt() {}

// Next fails here.
func (*Hall) Next() (Arrival, error) { return Arrival{}, errUnsupported }

// Queued finds nothing here.
func (*Hall) Queued() (Arrival, bool, error) { return Arrival{}, false, nil }
