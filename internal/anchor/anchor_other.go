//go:build !linux

package anchor

import "github.com/handover-go/handover/internal/launch"

// Run returns launch.ErrUnsupported here.
func Run(Config) (int, error) { return 1, launch.ErrUnsupported }
