//go:build !linux

package launch

import "os"

// OwnPidfd returns ErrUnsupported here.
func OwnPidfd() (*os.File, error) { return nil, ErrUnsupported }
