package upgrader

import (
	"cmp"
	"slices"
	"strings"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
)

// store gives the supervisor, if it keeps descriptors, a copy of each socket, so that
// none is closed when this process dies, and takes back what this process does without.
// From a process that is not the main one the supervisor takes nothing.
func (u *Upgrader) store() {
	if !sdnotify.Stores() {
		return
	}
	u.mu.Lock()
	var keep []*Socket
	for _, s := range u.sockets {
		keep = append(keep, s)
	}
	forget := u.unclaimed
	for _, s := range u.dropped {
		forget = append(forget, s.storeName())
	}
	u.mu.Unlock()
	// Clients come by the sockets: there may not be room for all.
	slices.SortFunc(keep, func(a, b *Socket) int {
		file := func(s *Socket) int {
			if s.spec.Network == listen.KindFile {
				return 1
			}
			return 0
		}
		return cmp.Or(file(a)-file(b), strings.Compare(a.spec.Name, b.spec.Name))
	})
	for _, name := range forget {
		if err := sdnotify.Unstore(name); err != nil {
			u.log.Error("a socket that is not used any more stays open in the supervisor", "name", name, "error", err)
			return // who does not listen now does not listen to the rest
		}
	}
	keep = slices.DeleteFunc(keep, func(s *Socket) bool {
		// systemd has its own sockets; the anchor keeps none of what it passes on.
		return s.adopted && !sdnotify.Anchored() || !s.adopted && !s.kept && s.spec.Network == listen.KindFile
	})
	if limit := sdnotify.StoreMax(); len(keep) > limit {
		u.log.Error("the supervisor keeps fewer descriptors than there are: what it does not keep closes if this process dies, raise its limit (FileDescriptorStoreMax=)", "number", len(keep), "limit", limit)
	}
	for _, s := range keep {
		if s.stored == s.storeName() {
			continue
		}
		f, err := s.dup()
		if err != nil {
			continue // closed meanwhile
		}
		err = sdnotify.Store(s.storeName(), f)
		f.Close()
		if err != nil {
			u.log.Error("the supervisor does not get a copy of a socket: it closes if this process dies", "socket", s.Name(), "error", err)
			return
		}
		s.stored = s.storeName()
	}
}

// storeName is the name by which a process that comes after this one's death finds the
// socket: of one that came from a supervisor, the name that it came by.
func (s *Socket) storeName() string {
	if s.adopted {
		return s.spec.Name
	}
	return s.spec.StoreName()
}
