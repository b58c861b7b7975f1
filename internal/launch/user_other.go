//go:build !linux

package launch

// MayChangeUser reports whether this process may start others as any user.
func MayChangeUser() bool { return false }
