// Package threads has a process start threads while it may.
package threads

import (
	"runtime"
	"sync"
)

// Keep has Go's runtime start threads until there are n for goroutines that wait in system calls,
// beside one for each CPU of this process (GOMAXPROCS) and one that waits for descriptors. It
// never ends one, and goes on with those that are idle before it starts another: so it hardly
// has to when no more may be started (RLIMIT_NPROC in getrlimit(2), pids.max of the control
// group), for which it has no error: it aborts the process. That is so here, too. A thread takes
// some 20 kB, and eight of them a third of a millisecond to start.
func Keep(n int) {
	n += runtime.GOMAXPROCS(0) + 1
	var held, done sync.WaitGroup
	held.Add(n)
	for range n {
		done.Go(func() {
			// While it waits nobody else can have its thread, which would end with it if it
			// were still locked.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			held.Done()
			held.Wait()
		})
	}
	done.Wait()
}
