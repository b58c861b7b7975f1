//go:build !linux

package drain

import (
	"errors"
	"net"

	"github.com/handover-go/handover/internal/moving"
)

var errGone = errors.New("drain: the client has gone")

func roomForOne() bool { return false }

func adopt(int, net.Addr, int) (net.Conn, error) { return nil, moving.ErrUnsupported }

func familyOf(net.Listener) int { return -1 }
