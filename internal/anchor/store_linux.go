package anchor

import (
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/pipe"
)

// maxStored is how many descriptors the anchor keeps (FDSTORE, systemd.exec(5)).
const maxStored = 1024

// maxNames is how long all their names together may be, in bytes: they go in one variable, of
// which the kernel takes 128 KiB (execve(2)).
const maxNames = 120 << 10

// store are the descriptors that the parent has given to keep, as systemd does
// (FileDescriptorStoreMax= in systemd.service(5)), for one that is started when it has
// died. What it has bound stays bound: clients wait in the queue.
type store struct{ list []listen.Descriptor }

// passed are the descriptors as a parent is to get them. They stay the store's.
func (s *store) passed() listen.Passed { return s.list }

// act does what a note says of it.
func (a *anchor) act(n *note) {
	name, named := n.Get("FDNAME")
	switch {
	case n.Says("FDSTORE", "1"):
		fds := n.Take()
		if !named || listen.CheckStored(name) != nil || len(fds) != 1 || !a.store.put(name, fds[0]) {
			a.log.Warn("not kept: one descriptor with a name is, up to a number", "name", name, "descriptors", len(fds), "number", maxStored)
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	case n.Says("FDSTOREREMOVE", "1") && named:
		a.store.drop(name)
	}
}

// answer says how a child has ended, to whoever of the service asks.
func (a *anchor) answer(n *note) {
	v, ok := n.Get(varStatus)
	if !ok || !descendant(n.Pid) {
		return
	}
	pid, _ := strconv.Atoi(v)
	for _, fd := range n.Take() {
		if ws, ok := a.statuses.m[pid]; ok {
			if own, err := pipe.Own(fd, os.O_WRONLY); err == nil { // who asks must not make this process wait
				_, _ = unix.Write(own, strconv.AppendUint(nil, uint64(ws), 10)) // there is room, unless somebody has filled it
				unix.Close(own)
			}
		}
		unix.Close(fd)
	}
}

// put keeps a descriptor, instead of one that has the name.
func (s *store) put(name string, fd int) bool {
	s.drop(name)
	names := len(name)
	for _, d := range s.list {
		names += len(d.Name) + 1
	}
	if len(s.list) == maxStored || names > maxNames {
		return false
	}
	s.list = append(s.list, listen.Descriptor{Name: name, Fd: fd})
	return true
}

func (s *store) drop(name string) {
	s.list = slices.DeleteFunc(s.list, func(d listen.Descriptor) bool {
		if d.Name == name {
			unix.Close(d.Fd)
		}
		return d.Name == name
	})
}

func (s *store) close() {
	for _, d := range s.list {
		unix.Close(d.Fd)
	}
	s.list = nil
}
