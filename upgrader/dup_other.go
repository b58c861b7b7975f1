//go:build !linux

package upgrader

import "golang.org/x/sys/unix"

// dupTo makes descriptor to another name of what descriptor from is (dup2(2)).
func dupTo(from, to int) error { return unix.Dup2(from, to) }
