//go:build !linux

package anchor

import "github.com/handover-go/handover/internal/launch"

// Become returns launch.ErrUnsupported here.
func Become(string, []string) error { return launch.ErrUnsupported }

// Run returns launch.ErrUnsupported here.
func Run(Config) (int, error) { return 1, launch.ErrUnsupported }
