package handover

import (
	"context"
	"io"
	"math"
	"os"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/logs"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// records is what the service remembers of what has been. It goes from parent to parent.
type records struct {
	history history.Log
	logs    logs.Book
}

// Names of records' files on their way to the next parent.
const (
	historyFile = "history"
	logsFile    = "logs"
)

// History is what has happened, the newest last.
func (p *parent) History() []history.Entry { return p.records.history.Entries() }

// Logs is what the workers have printed lately.
func (p *parent) Logs() *logs.Book { return &p.records.logs }

// Unkept are the workers of which nothing is kept that they print.
func (p *parent) Unkept(ctx context.Context) (list []logs.Worker, err error) {
	st, err := p.set.Status(ctx)
	for _, g := range st.Groups {
		for _, w := range g.Workers {
			if !w.Kept {
				list = append(list, printer(w))
			}
		}
	}
	return list, err
}

func printer(w workerset.Worker) logs.Worker {
	return logs.Worker{Group: w.Group, Slot: w.Slot, ID: w.ID, Generation: w.Generation, Pid: w.Pid}
}

// printed keeps what a worker has printed.
func (p *parent) printed(l workerset.Printed) {
	w := logs.Worker{Group: l.Group, Slot: l.Slot, ID: l.ID, Generation: l.Generation, Pid: l.Pid}
	p.records.logs.Add(l.Time, w, l.Stream, string(l.Text))
}

// died remembers the end of a worker.
func (p *parent) died(w workerset.Worker) {
	p.records.logs.End(printer(w))
	p.records.history.Add(history.Entry{Time: time.Now(), Death: deathOf(w)})
}

// deathOf is what is remembered of a worker that has ended.
func deathOf(w workerset.Worker) *history.Death {
	d := &history.Death{
		Group: w.Group, Slot: w.Slot, ID: w.ID, Generation: w.Generation, Pid: w.Pid,
		Cause: w.Cause, Failure: wire.Cause(w.Cause).Failure(), Reason: w.Reason, Exit: w.Exit, Started: w.Started, Drain: w.Drain,
		Served: w.Served, MovedIn: w.MovedIn, MovedOut: w.MovedOut, Cut: w.Cut,
		Terminated: w.Terminated, Killed: w.Killed, Dump: w.Dump,
	}
	if d.Cause == "" {
		d.Cause = w.Let
	}
	return d
}

// upgraded remembers an upgrade that has ended. The output is what the new program printed
// last, of one that has failed.
func (p *parent) upgraded(o control.Outcome, output string) {
	p.records.history.Add(upgradeEntry(o, output))
	p.memory.look()
}

func upgradeEntry(o control.Outcome, output string) history.Entry {
	return history.Entry{Time: time.Now(), Upgrade: &history.Upgrade{
		Generation: o.Generation, Began: o.Began, Result: string(o.Result), Reason: o.Reason, Output: output,
	}}
}

// giveRecords returns files of all that is remembered. With them goes what the successor
// would not hear of: this generation's own upgrade, if it has not ended before the next.
// (On the way back it is the successor who says how it has.)
func (p *parent) giveRecords() (files []upgrader.NamedFile) {
	past := p.records.history.Clone() // this one's own goes on if the successor fails
	if last := p.upgrades.overtaken(); last != nil {
		past.Add(upgradeEntry(*last, ""))
	}
	for name, write := range map[string]func(io.Writer) error{historyFile: past.Write, logsFile: p.records.logs.Write} {
		f, err := launch.MemoryFile(name)
		if err == nil {
			if err = write(f); err == nil {
				files = append(files, upgrader.NamedFile{Name: name, File: f})
				continue
			}
			f.Close()
		}
		p.log.Warn("the next parent will not know what has been", "what", name, "error", err)
	}
	return files
}

// takeRecords takes in a predecessor's file, if it is one of these.
func (p *parent) takeRecords(name string, f *os.File) bool {
	read := map[string]func(io.Reader) error{historyFile: p.records.history.Read, logsFile: p.records.logs.Read}[name]
	if read == nil {
		return false
	}
	defer f.Close()
	// Its offset is where the predecessor has stopped to write.
	if err := read(io.NewSectionReader(f, 0, math.MaxInt64)); err != nil {
		p.log.Warn("what the previous parent remembered can't be read", "what", name, "error", err)
	}
	return true
}
