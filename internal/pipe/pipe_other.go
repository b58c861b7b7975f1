//go:build !linux

package pipe

import (
	"errors"
	"fmt"
)

// Own fails here.
func Own(fd, mode int) (int, error) {
	return -1, fmt.Errorf("open a pipe once more: %w", errors.ErrUnsupported)
}
