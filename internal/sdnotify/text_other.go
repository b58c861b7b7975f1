//go:build !linux

package sdnotify

import "errors"

// StoreText is for Linux.
func StoreText(name string, text []byte) error { return errors.ErrUnsupported }
