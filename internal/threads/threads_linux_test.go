package threads

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const envHeld = "THREADS_HELD"

func TestMain(m *testing.M) {
	if os.Getenv(envHeld) != "" {
		held()
		return
	}
	os.Exit(m.Run())
}

// waiting is how many goroutines wait in system calls, and spare how many threads more there are:
// the runtime may start another while one is on its way to where it looks for those that are idle.
const waiting, spare = 12, 4

// held is a process that may start no more threads, with goroutines that wait in system calls.
func held() {
	if os.Getenv(envHeld) == "kept" {
		others := missing()
		Keep(waiting + spare)
		for missing() > others { // the thread that starts others has not come to the last one yet
			runtime.Gosched()
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 1, Max: 1}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var pipe [waiting][2]int
	var wait sync.WaitGroup
	for i := range pipe {
		if err := unix.Pipe2(pipe[i][:], unix.O_CLOEXEC); err != nil { // blocking ones
			fmt.Println(err)
			os.Exit(1)
		}
		wait.Go(func() {
			if n, err := unix.Read(pipe[i][0], make([]byte, 1)); n != 1 || err != nil {
				fmt.Println(n, err)
				os.Exit(1)
			}
		})
		runtime.Gosched()
	}
	for _, p := range pipe {
		if _, err := unix.Write(p[1], []byte{0}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	wait.Wait()
	fmt.Println("went on")
}

// missing is how many threads the runtime wants, less those that there are.
func missing() int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	return pprof.Lookup("threadcreate").Count() - len(tasks)
}

// TestKeep: a process with threads enough goes on when it may start no more, and is aborted
// without.
func TestKeep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody who has no other processes")
	}
	for _, c := range []struct {
		kept string
		goes bool
	}{{"kept", true}, {"none", false}} {
		t.Run(c.kept, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), envHeld+"="+c.kept, "GORACE=atexit_sleep_ms=0")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64120, Gid: 64120}}
			out, err := cmd.CombinedOutput()
			if goes := err == nil && string(out) == "went on\n"; goes != c.goes {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
