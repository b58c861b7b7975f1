package upgrader

import "golang.org/x/sys/unix"

// dupTo makes descriptor to another name of what descriptor from is (dup3(2),
// which unlike dup2 exists on every architecture).
func dupTo(from, to int) error { return unix.Dup3(from, to, 0) }
