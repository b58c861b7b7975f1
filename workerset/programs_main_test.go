//go:build linux

package workerset_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
)

// nodeConn is the channel of a program that speaks as Node does. Only one of this and
// the step "write" can be used.
var nodeConn = sync.OnceValue(func() *wire.Conn {
	c, err := wire.NewConn(foreignChannel())
	if err != nil {
		panic(err)
	}
	return c
})

// nodeStep is a step of such a program; false if it is none.
func nodeStep(what, arg string, term <-chan os.Signal) bool {
	switch what {
	case "first": // the first one that comes here goes on, others wait for TERM
		f, err := os.OpenFile(arg, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			<-term
			os.Exit(0)
		}
		f.Close()
	case "say": // a line
		must(nodeConn().Send(json.RawMessage(arg)))
	case "sayfd": // bytes, as they are, with a descriptor
		sendBytes(arg, true)
	case "bytes":
		sendBytes(arg, false)
	case "read": // what is for Node
		for {
			line, err := nodeConn().Read()
			must(err)
			if strings.Contains(string(line), `"NODE_HANDOVER_`) {
				continue
			}
			files, err := nodeConn().TakeFiles(nodeConn().Pending())
			must(err)
			fmt.Printf("read %s with %d\n", line, len(files))
			break
		}
	case "end": // of the channel
		must(nodeConn().Close())
	case "signals":
		fmt.Println("signals:", len(term))
	default:
		return false
	}
	return true
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func sendBytes(text string, withFd bool) {
	rc, err := nodeConn().SyscallConn()
	must(err)
	var oob []byte
	if withFd {
		f, err := os.Open(os.DevNull)
		must(err)
		defer f.Close()
		oob = unix.UnixRights(int(f.Fd()))
	}
	must(rc.Control(func(fd uintptr) { must(unix.Sendmsg(int(fd), []byte(text), oob, nil, syscall.MSG_NOSIGNAL)) }))
}
