//go:build !linux

package workerset

import (
	"os"

	"github.com/handover-go/handover/internal/launch"
)

func memoryFile(string) (*os.File, error) { return nil, launch.ErrUnsupported }
