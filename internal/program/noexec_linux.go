package program

import "golang.org/x/sys/unix"

// noexec reports whether a file lies on a file system whose programs may not be executed.
func noexec(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Flags&unix.ST_NOEXEC != 0
}
