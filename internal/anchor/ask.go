package anchor

import (
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/sdnotify"
)

// varStatus is a variable in notifications: how has the child of that pid ended?
const varStatus = "X_HANDOVER_STATUS"

// askTime bounds a question.
const askTime = time.Second

// ask asks the anchor how a process has ended which it has reaped.
func ask(pid int) (ws syscall.WaitStatus, ok bool) {
	answer, err := sdnotify.Ask(fmt.Sprintf("%s=%d", varStatus, pid), askTime)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(answer, 10, 32)
	return syscall.WaitStatus(n), err == nil
}
