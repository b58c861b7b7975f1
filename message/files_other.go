//go:build !unix

package message

import (
	"errors"
	"os"
)

// duplicates fails if there is a file.
func duplicates(files []*os.File) ([]*os.File, error) {
	if len(files) > 0 {
		return nil, errors.ErrUnsupported
	}
	return nil, nil
}
