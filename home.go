package handover

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"

	"github.com/handover-go/handover/internal/image"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/workerset"
)

// This file is about what a dead parent has left: workers that serve on and report to the
// next one, as long as there is a supervisor that keeps the place where they do.

// home is where a group's workers report.
func (p *parent) home(group string) (workerset.Home, error) {
	ends, err := p.up.KeptPair([2]string{"handover.report." + group, "handover.hear." + group}, workerset.NewHome)
	return workerset.Home{Report: ends[0], Hear: ends[1]}, err
}

// word is what a generation is made of, in a word: the same for a parent that does the same
// again, and another one for another binary, arguments, configuration or programs.
func (r recipe) word(own image.Build) string {
	size := int64(0) // of which a build has one, whatever somebody has put behind it
	if st, err := os.Stat(launch.Self); err == nil {
		size = st.Size()
	}
	b, err := json.Marshal(struct {
		Build    string
		Size     int64
		Args     []string
		Source   []byte
		Programs map[string]location
	}{own.ID + own.String(), size, os.Args[1:], r.Source, r.Programs})
	if err != nil {
		return "" // strings and bytes can be written
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// goOn looks for workers that a dead parent has left. If this one is made of the same, it is
// of their generation and none has to be replaced; else it is one of the next, and replaces
// them as an upgrade does.
func (p *parent) goOn(cfg *workerset.Config) {
	cfg.Recipe = p.made.word(p.builds.running())
	if p.up.HasPredecessor() {
		return // which decides about them, and whose homes these are
	}
	for _, g := range cfg.Groups {
		if g.Home == (workerset.Home{}) {
			continue
		}
		if err := cfg.Left.Look(g); err != nil {
			p.log.Warn("a worker that a dead parent has left can't be taken over", "group", g.Name, "error", err)
		}
	}
	kept := map[string]*os.File{}
	for _, f := range p.up.Stored(workerset.KeptPrefix) {
		kept[f.Name] = f.File
	}
	for _, name := range cfg.Left.Take(kept) {
		p.supervisor.forgets(name)
	}
	past := p.memory.past()
	if past == nil {
		past = &memoryState{}
	} else {
		cfg.Left.Remember(past.Set)
		p.recall(past)
	}
	same, last := cfg.Left.Generations(cfg.Recipe)
	defer func() { p.inherit(past.Back) }()
	switch {
	case last == 0:
		return
	case same == last:
		p.resumes, cfg.Trial = true, false
		p.up.Continue(last)
	default:
		p.up.Continue(last + 1)
	}
	p.made.Generation = p.up.Generation()
	cfg.Generation = p.up.Generation()
	p.log = p.cfg.Logger.With("generation", p.up.Generation(), "service", p.cfg.Name)
	cfg.Logger = p.log
	p.log.Info("a parent has died, this one goes on with its workers", "replaced", !p.resumes)
}
