// Package threads has a process start its threads before a limit forbids it.
package threads

import (
	"runtime"
	"sync"
)

// Keep has Go's runtime start threads until there are n for goroutines that wait in system calls,
// beside one for each CPU of this process (GOMAXPROCS) and one that waits for descriptors. It
// keeps them, and takes those that are idle before it starts another. So a process that has
// enough needs none when no more may be started (RLIMIT_NPROC in getrlimit(2), pids.max of its
// control group); one that does is aborted: the runtime has no error for it, in Keep neither.
// A thread takes some 20 kB, and eight of them a third of a millisecond to start.
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
