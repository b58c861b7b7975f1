//go:build linux

package worker

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
)

// FuzzObey: whatever a parent of another version says, nothing panics, and what a worker has once
// done it does not do again: it drains, and may exit, for good.
func FuzzObey(f *testing.F) {
	for _, seed := range []string{
		`{"cmd":"NODE_HANDOVER_GO"}` + "\n" + `{"cmd":"NODE_HANDOVER_MOVES","do":"give"}` + "\n" + `{"cmd":"NODE_HANDOVER_DRAIN","timeout":-9223372036854775808,"stop":true}`,
		`{"cmd":"NODE_HANDOVER_DRAIN","exit":true}` + "\n" + `{"cmd":"NODE_HANDOVER_DRAIN","timeout":1}` + "\n" + `{"cmd":"NODE_HANDOVER_EXIT"}` + "\n" + `{"cmd":"NODE_HANDOVER_EXIT"}`,
		`{"cmd":"NODE_HANDOVER_SERVICE","ready":true,"helpers":[{}]}` + "\n" + `{"cmd":"NODE_HANDOVER_STOPPING"}` + "\n" + `{"cmd":"NODE_HANDOVER_STOPPING"}`,
		`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"from":{"group":"a"},"type":"x","data":{},"files":1}` + "\n" + `{"cmd":"NODE_HANDOVER_SENT","n":-1}`,
		`{"cmd":"NODE_HANDOVER_CONNECT","socket":"http"}`, `{"cmd":"NODE_HANDOVER_WHO","mail":true,"n":4}` + "\n" + `{"cmd":"NODE_HANDOVER_HOLD"}` + "\n" + `{"cmd":"NODE_HANDOVER_FORGIVE"}`,
		"3\n[]\nnull\n{", `{"cmd":7}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		a, b, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		conn, err := wire.NewConn(a)
		if err != nil {
			t.Fatal(err)
		}
		w, err := newWorker(t.Context(), Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		w.post = message.New(&w.mail)
		w.mail.conn = &w.conn
		w.conn.set(conn, nil)
		for line := range bytes.SplitSeq(lines, []byte("\n")) {
			if w.obey(conn, line) != nil {
				break // the parent counts as dead
			}
			_ = w.stateLocked()
		}
		if isClosed(w.leave) && (w.state.Phase != wire.PhaseDraining || w.ctx.Err() == nil) {
			t.Errorf("it has begun to drain, and is %s", w.state.Phase)
		}
		w.stop()
		w.mail.end()
		w.conn.close()
		w.post.Close(ErrNoParent)
		w.post.Wait()
	})
}
