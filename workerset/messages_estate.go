package workerset

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/router"
)

// This file is about messages that are under way when another process takes over.

// postState is versioned by adding fields only. All of it may be missing. It may be
// large, unlike estateState, and travels in a file.
type postState struct {
	Router  router.State      `json:"router"`
	Residue map[string][]byte `json:"residue,omitempty"` // by identity: the part of a line that was read
	Rest    map[string][]byte `json:"rest,omitempty"`    // by identity: the part of a line that was not written
}

// halves notes what is half read, and half written.
func (p *postState) halves(identity string, residue, rest []byte) {
	put := func(m *map[string][]byte, b []byte) {
		if len(b) == 0 {
			return
		}
		if *m == nil {
			*m = map[string][]byte{}
		}
		(*m)[identity] = b
	}
	put(&p.Residue, residue)
	put(&p.Rest, rest)
}

// small is the residue as far as estateState may hold it, which travels in one line.
func (p *postState) small() map[string][]byte {
	m := map[string][]byte{}
	for identity, b := range p.Residue {
		if len(b) <= 4<<10 {
			m[identity] = b
		}
	}
	return m
}

// givePost puts what is under way into the estate.
func (s *Set) givePost(e *Estate, p postState) error {
	p.Router = s.post.State()
	for _, l := range p.Router.Letters {
		for i, f := range s.post.files[l.ID].files {
			name := fmt.Sprintf("%s%d/%d", kindPost, l.ID, i)
			c, err := dupFile(f, name)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name(), err)
			}
			e.Files[name] = c
		}
	}
	f, err := launch.MemoryFile(namePost)
	if err != nil {
		return err
	}
	e.Files[namePost] = f
	b, err := json.Marshal(p)
	if err == nil {
		_, err = f.Write(b)
	}
	return err
}

// takePost takes it out again.
func (s *Set) takePost(e Estate) (p postState) {
	f := e.Files[namePost]
	if f == nil {
		return p // of an older version
	}
	delete(e.Files, namePost)
	defer f.Close()
	err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<40)).Decode(&p)
	if err != nil {
		s.log.Warn("the messages under way at the previous parent can't be read, they are lost", "error", err)
		p = postState{}
	}
	return p
}

// adoptPost goes on with what was under way. The workers are known to the router. Those
// whose mail the parent before waited for are asked anew: it may have had the answer, and
// not have been able to read it.
func (s *Set) adoptPost(p postState, e Estate) {
	letters := s.post.Restore(p.Router)
	for _, l := range p.Router.Letters {
		var files []*os.File
		for i := range l.Files {
			name := fmt.Sprintf("%s%d/%d", kindPost, l.ID, i)
			if f := e.Files[name]; f != nil {
				delete(e.Files, name)
				files = append(files, f)
			}
		}
		s.post.keep(letters[l.ID], parcels{files: files, ours: true})
	}
	for key, in := range s.byKey {
		if p := router.Peer(key); s.post.Doubts(p) {
			in.tell(s.post.Who(p))
		}
	}
}
