//go:build !linux

package procs

import "context"

// Subreaper needs Linux; here it returns [ErrNotLinux].
func Subreaper() error { return ErrNotLinux }

// Descendants needs Linux; here it returns [ErrNotLinux].
func Descendants(pid int) ([]Process, error) { return nil, ErrNotLinux }

// List needs Linux; here it returns [ErrNotLinux].
func List() ([]Process, error) { return nil, ErrNotLinux }

// Args needs Linux; here it returns [ErrNotLinux].
func Args(pid int) ([]string, error) { return nil, ErrNotLinux }

// Environ needs Linux; here it returns [ErrNotLinux].
func Environ(pid int) ([]string, error) { return nil, ErrNotLinux }

// Memory needs Linux; here it returns [ErrNotLinux].
func Memory(pid int) (int64, error) { return 0, ErrNotLinux }

// Standing needs Linux; here it returns [ErrNotLinux].
func Standing() (map[string]bool, error) { return nil, ErrNotLinux }

// Listeners needs Linux; here it returns [ErrNotLinux].
func Listeners(network, address string) (map[string]bool, error) { return nil, ErrNotLinux }

// FDs needs Linux; here it returns [ErrNotLinux].
func FDs(pid int) (map[int]string, error) { return nil, ErrNotLinux }

// Freeze needs Linux; here it returns [ErrNotLinux].
func Freeze(ctx context.Context, pid int) error { return ErrNotLinux }

// Peers needs Linux; here it returns [ErrNotLinux].
func Peers(pid int) (map[string]bool, error) { return nil, ErrNotLinux }

// ReapAll needs Linux; here it returns [ErrNotLinux].
func ReapAll(ctx context.Context) error { return ErrNotLinux }
