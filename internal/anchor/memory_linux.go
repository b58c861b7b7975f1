package anchor

import (
	"bufio"
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// idleTime is how long nothing has to have happened before memory is given back.
const idleTime = time.Second

// limitMemory makes the garbage collector run only when the anchor is idle, see
// giveBack, or when a lot has happened: its own periodic runs would bring back pages of
// the program that nobody gives back.
func limitMemory() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(16 << 20)
}

// giveBack returns memory that is not needed while nothing happens. The program is a
// large one, most of which is the other roles'; what has been mapped of its file at the
// start, or by chance around what was needed, counts as this process's, and comes back
// from the page cache when it is needed.
func giveBack() {
	debug.FreeOSMemory()
	for _, m := range cleanMappings() {
		// An error leaves things as they are. The scheduler is not to know: it would start a
		// thread for what else there is, which brings back what has just been given.
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

type mapping struct{ start, end uintptr }

// cleanMappings are those of files that can't be written to and of which nothing was
// changed (/proc/pid/smaps, proc(5)): a linker or a debugger may have done that, and
// such pages are nowhere else.
func cleanMappings() []mapping {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []mapping
	var m mapping
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Bytes()
		if name, kb, ok := bytes.Cut(line, []byte(":")); ok && !bytes.ContainsAny(name, " -") {
			if string(name) == "Anonymous" && string(bytes.TrimSpace(kb)) == "0 kB" && m.end > 0 {
				list = append(list, m)
			}
			continue
		}
		m = parseMapping(line)
	}
	return list
}

// parseMapping reads "start-end perms offset dev inode path", and returns nothing for
// what is no file, or can be written to.
func parseMapping(line []byte) mapping {
	f := bytes.Fields(line)
	if len(f) < 6 || f[5][0] != '/' || !bytes.HasPrefix(f[1], []byte("r-")) {
		return mapping{}
	}
	from, to, _ := bytes.Cut(f[0], []byte("-"))
	start, err := strconv.ParseUint(string(from), 16, 64)
	end, err2 := strconv.ParseUint(string(to), 16, 64)
	if err != nil || err2 != nil {
		return mapping{}
	}
	return mapping{uintptr(start), uintptr(end)}
}
