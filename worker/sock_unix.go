//go:build unix

package worker

import "golang.org/x/sys/unix"

const soAcceptConn = unix.SO_ACCEPTCONN
