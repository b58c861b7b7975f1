package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/handover-go/handover/internal/image"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// This file is about the generation that can be gone back to: the last one before this
// that has proven itself.

// recipe is what a generation is made of beside its binary, and what is the same in all of
// them, the arguments and the environment. It is versioned by adding fields only.
type recipe struct {
	Generation int    `json:"generation"`
	Source     []byte `json:"source"` // Config.Source; null: there was none, which is not an empty one
	// Programs are what groups execute, by name, as it was found then.
	Programs map[string]location `json:"programs,omitempty"`
}

// location is where a program was found, by its resolved path.
type location struct {
	Path string `json:"path"`
	Name string `json:"name"`
	Dir  string `json:"dir"`
}

// previous is a generation that can be gone back to.
type previous struct {
	recipe
	exe *os.File // its binary; nil: the one that runs here
}

// wayBack is what a parent leaves of it that dies. Its binary, if it is another than this one's,
// the supervisor keeps as previousFile.
type wayBack struct {
	Recipe recipe `json:"recipe"`
	Binary bool   `json:"binary,omitempty"`
}

// previousFile is that file's name.
const previousFile = "handover.previous"

// left is what a next parent needs, nil if there is no previous generation.
func (p *previous) left() *wayBack {
	if p == nil {
		return nil
	}
	return &wayBack{Recipe: p.recipe, Binary: p.exe != nil}
}

// inherit takes over the way back from a dead parent, in the parent that goes on with its
// generation. Any other has none.
func (p *parent) inherit(w *wayBack) {
	var exe *os.File
	for _, f := range p.up.Stored(previousFile) {
		exe = f.File
	}
	if p.resumes && w != nil && w.Binary == (exe != nil) {
		p.upgrades.canGoBack(&w.Recipe, exe)
		return
	}
	if exe != nil {
		exe.Close()
	}
	p.supervisor.forgets(previousFile)
}

func (p *previous) close() {
	if p != nil && p.exe != nil {
		p.exe.Close()
	}
}

// pin notes what a group executes.
func (p *parent) pin(group string, prog workerset.Program) {
	if p.made.Programs == nil {
		p.made.Programs = map[string]location{}
	}
	p.made.Programs[group] = location{Path: prog.Path, Name: prog.Name, Dir: prog.Dir}
}

// envBack tells a new parent that it is the one of a generation that is gone back to, and
// which.
const envBack = "HANDOVER_BACK"

// back is a return to an older generation.
type back struct {
	Failed int    `json:"failed,omitempty"` // the one whose probation has failed; 0: somebody has asked
	Reason string `json:"reason,omitempty"` // why
	Recipe recipe `json:"recipe"`
}

// fails reports whether it is one from a generation that has failed.
func (b *back) fails() bool { return b != nil && b.Failed != 0 }

// goesBack is what this process was started for, if it is the parent of a generation that
// is gone back to. It is read before anything looks at the configuration.
var goesBack, errBack = parseBack(take(envBack))

func parseBack(v *string) (*back, error) {
	if v == nil {
		return nil, nil
	}
	b := &back{}
	if err := json.Unmarshal([]byte(*v), b); err != nil {
		return nil, fmt.Errorf("%s=%q: %w", envBack, *v, err)
	}
	return b, nil
}

// take is a variable of the environment, which it takes out of it.
func take(name string) *string {
	v, ok := os.LookupEnv(name)
	if !ok {
		return nil
	}
	os.Unsetenv(name)
	return &v
}

// KeptSource is the Config.Source that this process has to go by, whatever is in the file by
// now, and nil if it has to read it: in the parent of a generation that is gone back to,
// that generation's, and in a worker, its parent's.
func KeptSource() []byte {
	switch {
	case parentsSource != nil:
		return []byte(*parentsSource)
	case goesBack != nil:
		return goesBack.Recipe.Source
	}
	return nil
}

// envSource gives a worker of this binary its parent's Config.Source.
const envSource = "HANDOVER_SOURCE"

var parentsSource = take(envSource)

// MaxSource is how long a Config.Source may be, in bytes: it travels in an environment variable, of
// which the kernel takes 128 KiB (execve(2)).
const MaxSource = 64 << 10

// maxWhy is how much of a reason, which may be a worker's own words, travels beside it.
// Each of its bytes may become six in JSON.
const maxWhy = 2 << 10

func shortened(why string) string {
	if len(why) <= maxWhy {
		return why
	}
	return strings.ToValidUTF8(why[:maxWhy], "") + "…"
}

// target is how to go back to a generation.
func (p *previous) target(b back) (upgrader.Target, error) {
	t := upgrader.Target{Path: "/proc/self/exe", Name: fmt.Sprintf("the binary of generation %d", p.Generation)}
	if p.exe != nil {
		path, err := image.Path(p.exe)
		if err != nil {
			return t, err
		}
		t.Path = path
	}
	b.Recipe, b.Reason = p.recipe, shortened(b.Reason)
	v, err := json.Marshal(b)
	t.Env = []string{envBack + "=" + string(v)}
	return t, err
}

// errNoPrevious is why there is no going back.
var errNoPrevious = errors.New("there is no generation to go back to")

// keeper has this generation's binary for those that come after it. It belongs to the
// goroutine that carries out upgrades.
type keeper struct {
	made   *os.File         // a copy that was made
	making chan *keptBinary // gets one that is being made; nil: none is
}

type keptBinary struct {
	file *os.File
	err  error
}

// begin makes a copy, beside the start of a new program, if that is another one: path is
// where it is. What runs can't be overwritten meanwhile (ETXTBSY, execve(2)), so that this
// is early enough.
func (k *keeper) begin(path string) {
	if k.made != nil || k.making != nil || image.Runs(path) {
		return
	}
	c := make(chan *keptBinary, 1)
	k.making = c
	go func() {
		f, err := image.Copy()
		c <- &keptBinary{f, err}
	}()
}

// get waits for the copy. It is nil if the new program is the same.
func (k *keeper) get(path string) (*os.File, error) {
	k.begin(path) // if the file has changed since
	if k.making != nil {
		b := <-k.making
		k.making = nil
		k.made = b.file
		return b.file, b.err
	}
	return k.made, nil
}

// close waits for what is being made.
func (k *keeper) close() {
	if k.making != nil {
		k.made = (<-k.making).file
		k.making = nil
	}
	if k.made != nil {
		k.made.Close()
	}
}
