package workerset

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of sock_diag(7), linux/inet_diag.h: a header, and what is asked or answered after it.
const (
	diagAsk    = unix.SizeofNlMsghdr + 8 + diagEnds // struct inet_diag_req_v2
	diagAnswer = unix.SizeofNlMsghdr + 72           // struct inet_diag_msg, inode last
	diagEnds   = 48                                 // struct inet_diag_sockid
	listens    = 10                                 // TCP_LISTEN
)

// diagnose asks the kernel for the inode of a TCP socket with these two ends, which is 0 as long
// as nobody has accepted it. ok is false if there is no such socket, or nobody may ask.
func diagnose(local, remote netip.AddrPort) (inode uint32, ok bool) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, diagRequest(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, false
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0) // the answer is there when the question is sent
	if err != nil {
		return 0, false
	}
	return diagInode(b[:n])
}

func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, 0, diagAsk)
	order, wire := binary.NativeEndian, binary.BigEndian
	b = order.AppendUint32(b, diagAsk)
	b = order.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = order.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // number and port
	family := byte(unix.AF_INET)
	if local.Addr().Unmap().Is6() {
		family = unix.AF_INET6
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = order.AppendUint32(b, ^uint32(0)) // in any state
	b = wire.AppendUint16(b, local.Port())
	b = wire.AppendUint16(b, remote.Port())
	for _, end := range []netip.AddrPort{local, remote} {
		var a [16]byte
		copy(a[:], end.Addr().Unmap().AsSlice())
		b = append(b, a[:]...)
	}
	b = append(b, make([]byte, 4)...)        // on any interface
	return order.AppendUint64(b, ^uint64(0)) // without a cookie
}

// diagInode reads an answer. Where there is no connection the kernel tells of who listens there.
func diagInode(b []byte) (inode uint32, ok bool) {
	order := binary.NativeEndian
	if len(b) < diagAnswer || order.Uint16(b[4:]) != unix.SOCK_DIAG_BY_FAMILY || b[unix.SizeofNlMsghdr+1] == listens {
		return 0, false
	}
	return order.Uint32(b[diagAnswer-4:]), true
}
