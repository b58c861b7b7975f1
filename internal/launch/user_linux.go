package launch

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// MayChangeUser reports whether this process may start others as any user
// (capabilities(7)).
func MayChangeUser() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	const both = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return data[0].Effective&both == both
}

// credential is what syscall wants.
func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// become makes this process the user's, for good.
func (u *User) become() error {
	groups := make([]int, len(u.Groups))
	for i, g := range u.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("user %d:%d: setgroups: %w", u.UID, u.GID, err)
	}
	if err := syscall.Setgid(int(u.GID)); err != nil {
		return fmt.Errorf("user %d:%d: setgid: %w", u.UID, u.GID, err)
	}
	if err := syscall.Setuid(int(u.UID)); err != nil {
		return fmt.Errorf("user %d:%d: setuid: %w", u.UID, u.GID, err)
	}
	return nil
}
