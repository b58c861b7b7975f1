package launch

// User is who a process runs as (credentials(7)).
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // supplementary ones; none are kept
}
