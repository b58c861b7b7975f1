package cputime

import (
	"fmt"
	"os"
	"time"
)

// Of is how much CPU time a process has used, with what the children had that it has
// waited for.
func Of(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parse(b)
}
