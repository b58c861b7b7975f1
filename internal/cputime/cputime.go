// Package cputime says how much of the CPUs' time a process has used.
package cputime

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// tick is what /proc counts in, on every architecture that Go knows (USER_HZ).
const tick = time.Second / 100

// ErrUnsupported: it is not known on this system.
var ErrUnsupported = errors.New("the CPU time of processes is known on Linux only")

// parse reads proc_pid_stat(5): "pid (comm) state …", where comm may hold anything. It adds
// what the process itself has used and what its children had that it has waited for.
func parse(stat []byte) (time.Duration, error) {
	const first = 14 - 3 // of four fields; those behind comm begin with the third
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if !bytes.Contains(stat, []byte(")")) || len(fields) < first+4 {
		return 0, fmt.Errorf("no CPU time in %.80q", stat)
	}
	var sum time.Duration
	for _, f := range fields[first : first+4] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil || n < 0 || n > int64(1<<62/tick/4) {
			return 0, fmt.Errorf("%.20q is no CPU time, in %.80q", f, stat)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
