//go:build !linux

package launch

import "os"

// MemoryFile needs Linux.
func MemoryFile(string) (*os.File, error) { return nil, ErrUnsupported }
