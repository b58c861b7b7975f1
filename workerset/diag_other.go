//go:build !linux

package workerset

import "net/netip"

func diagnose(local, remote netip.AddrPort) (inode uint32, ok bool) { return 0, false }
