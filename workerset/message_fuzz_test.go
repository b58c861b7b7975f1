//go:build linux

package workerset

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// FuzzMessage lets a worker, of this library or a program, say anything on its channel, which it
// does not read: nothing panics, and what is kept of its words is bounded.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"cmd":"NODE_HANDOVER_STATE","phase":"serving","served":3,"cause":"panic","nth":1,"reason":"no luck"}` + "\n" + `{"cmd":"NODE_HANDOVER_STATE","phase":"drained"}`,
		`{"cmd":"NODE_HANDOVER_STATE","phase":"exiting","exitCode":-1}` + "\n" + `{"cmd":"NODE_HANDOVER_STATE","phase":"serving"}`,
		`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"parent"},"type":"x"}` + "\n" + `{"cmd":"NODE_HANDOVER_DONE","n":1}`,
		`"ready"` + "\n" + `{"act":"suicide"}`,
		`{"to":"any:web","type":"x","id":7,"data":[1]}` + "\n" + `{"to":"web/2","type":"y"}` + "\n" + `{"to":"nobody"}`,
		`{"cmd":"NODE_CLUSTER","act":"online","seq":0}` + "\n" + `{"cmd":"NODE_CLUSTER","act":"queryServer","address":null,"port":80,"addressType":4,"seq":1}` + "\n" + `{"cmd":"NODE_CLUSTER","act":"close","key":"x"}`,
		`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{}}` + "\n" + `{"cmd":"NODE_HANDLE_ACK"}` + "\n" + `{"cmd":"NODE_HANDLE_NACK"}`,
		`{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"k"}` + "\n" + "3\n[]\nnull",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, lines []byte, program bool) {
		a, b, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		conn, err := wire.NewConn(a)
		if err != nil {
			t.Fatal(err)
		}
		g := newGroup(Group{Name: "web", Count: 2, Surge: 1, Burst: 2, Per: time.Second, DrainTimeout: time.Second})
		s := &Set{
			log: slog.New(slog.DiscardHandler), committed: true, groups: []*group{g}, byKey: map[int]*incarnation{},
			events: make(chan event), quit: make(chan struct{}), post: newPost(), lingering: map[*incarnation]int{},
		}
		in := &incarnation{
			group: g, as: g.Group, key: s.nextKey(), id: 1, slot: 1, generation: 1, program: program,
			state: lifecycle.Starting, since: time.Now(), hungAfter: time.Minute,
		}
		g.members, s.byKey[in.key] = []*incarnation{in}, in
		s.connectTo(in, conn, nil)
		for line := range bytes.SplitSeq(lines, []byte("\n")) {
			if in.deaf || in.state == lifecycle.Exited {
				break
			}
			s.message(in, line, nil)
			s.roles()
			s.deliver()
		}
		if len(in.reason) > maxReason || len(in.report.Reason) > maxReason || len(in.calls) > wire.MessageWindow || len(in.handouts.queue) > maxHandouts {
			t.Errorf("%d and %d bytes of reasons, %d calls, %d descriptors wait", len(in.reason), len(in.report.Reason), len(in.calls), len(in.handouts.queue))
		}
		_ = in.status()
		close(s.quit)
		s.post.endpoint.Close(nil)
		in.close()
		s.wg.Wait()
		s.post.endpoint.Wait()
		s.post.closeFiles()
	})
}
