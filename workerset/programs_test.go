//go:build linux

package workerset_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

const suicide = `{"act":"suicide"}`

// touch makes a file for which a program waits.
func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSuicide: a program that says so is replaced once, and left alone. That it was ready
// before, which it has said elsewhere, counts.
func TestSuicide(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	end := filepath.Join(dir, "end")
	h := newForeign(t, "catch;notify READY=1;first "+dir+"/first;say "+suicide+";say "+suicide+";wait "+end+";signals;exit 1", func(c *workerset.Config) {
		c.Groups[0].Ready = workerset.Readiness{By: workerset.ReadyNotify}
		c.Groups[0].DrainTimeout = patience
	}).start()
	if w := h.state(1, "condemned"); w.Cause != "error" || !strings.Contains(w.Reason, "suicide") {
		t.Errorf("%+v", w)
	}
	h.state(2, "serving")
	h.state(1, "draining")
	touch(t, end)
	if w := h.state(1, "exited"); w.Exit != "exit status 1" || w.Cause != "error" {
		t.Errorf("%+v", w)
	}
	h.printed("web/1 | signals: 0\n")
	if st := h.status(); st.Failures != 1 || st.Restarts != 1 || len(st.Workers) != 1 || st.Workers[0].ID != 2 || len(st.Waiting) != 0 {
		t.Errorf("%+v", st)
	}
}

// TestSuicideIsHandedOver: the next parent neither replaces it again nor asks it to drain.
func TestSuicideIsHandedOver(t *testing.T) {
	dir := t.TempDir()
	end := filepath.Join(dir, "end")
	noLeak(t)
	steps := "catch;notify READY=1;first " + dir + "/first;say " + suicide + ";wait " + end + ";signals;exit 1"
	h := newForeign(t, steps, func(c *workerset.Config) {
		c.Groups[0].Ready = workerset.Readiness{By: workerset.ReadyNotify}
		c.Groups[0].DrainTimeout = patience
	}).start()
	h.state(1, "condemned")
	h.state(2, "serving")
	next := h.program("catch;notify READY=1;term;exit 0")
	e := h.yield()
	if err := next.set.Commit(h.ctx(), e); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	touch(t, end)
	c, _ := next.wait(0, func(c workerset.Change) bool {
		return c.Worker.Generation == 1 && c.Worker.ID == 1 && c.Worker.State == "exited"
	})
	if w := c.Worker; w.Exit != "exit status 1" || w.Cause != "error" {
		t.Errorf("%+v", w)
	}
	next.printed("web/1 | signals: 0\n")
	if st := next.status(); st.Failures != 1 || len(st.Waiting) != 0 {
		t.Errorf("%+v", st)
	}
	next.stop()
}

// program is a trial of another program.
func (h *harness) program(steps string) *harness {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	return h.trial(func(c *workerset.Config) {
		c.Program.Path = self
		c.Groups[0].Env = []string{foreign(steps)}
	})
}

// TestHandlesFromProgram: what a program sends with a descriptor is answered at once, in
// whatever pieces and among whatever else it arrives; over an upgrade, too.
func TestHandlesFromProgram(t *testing.T) {
	const handle = `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"my":"socket"}}`
	noLeak(t)
	h := newForeign(t, `notify READY=1;say {"a":1};sayfd `+handle+`\n;say {"b":2};read;bytes {"c":3}\n{"d";sayfd :4}\n`+handle+`\n"ready"\n;read;`+
		`say {"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"4::80"};read;say {"cmd":"NODE_SOCKET_GET_COUNT","key":"4::80"};read;exit 0`, nil).start()
	h.printed(`web/1 | read {"cmd":"NODE_HANDLE_ACK"} with 0` + "\n" + `web/1 | read {"cmd":"NODE_HANDLE_ACK"} with 0` + "\n")
	h.printed(`web/1 | read {"cmd":"NODE_SOCKET_ALL_CLOSED","key":"4::80","count":0} with 0` + "\n" +
		`web/1 | read {"cmd":"NODE_SOCKET_COUNT","key":"4::80","count":0} with 0` + "\n")
	if w := h.state(1, "exited"); w.Exit != "exit status 0" {
		t.Errorf("%+v", w)
	}
	h.stop()

	file := filepath.Join(t.TempDir(), "go")
	h = newForeign(t, "catch;notify READY=1;sayfd "+handle[:20]+";print half;wait "+file+";bytes "+handle[20:]+`\n;read;term;exit 0`, nil).serve()
	h.printed("web/1 | half\n")
	next := h.program("catch;notify READY=1;term;exit 0")
	e := h.yield()
	if err := next.set.Commit(h.ctx(), e); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	touch(t, file)
	next.printed(`web/1 | read {"cmd":"NODE_HANDLE_ACK"} with 0` + "\n")
	next.stop()
}

// TestStrayDescriptor: one that comes with no such message is garbage, from programs,
// too, and one that does not come is asked for again.
func TestStrayDescriptor(t *testing.T) {
	noLeak(t)
	h := newForeign(t, `catch;notify READY=1;say {"cmd":"NODE_HANDLE","type":"net.Socket","msg":1};read;sayfd {"a":1}\n;print said;term;exit 0`, nil).serve()
	h.printed(`web/1 | read {"cmd":"NODE_HANDLE_NACK"} with 0` + "\nweb/1 | said\n")
	h.logged("1 descriptors that no message announced")
	h.stop()
}

// logged waits until the set has logged a text.
func (h *harness) logged(text string) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(h.log.String(), text); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("%q is not in the log", text)
		}
	}
}

const (
	ack     = `say {"cmd":"NODE_HANDLE_ACK"};`
	nack    = `say {"cmd":"NODE_HANDLE_NACK"};`
	offered = `web/1 | read {"cmd":"NODE_HANDLE","type":"net.Server","msg":"%"} with 1` + "\n"
)

// offers makes a set whose programs are offered two sockets, "http" and "other".
func offers(t *testing.T, c *workerset.Config) {
	t.Helper()
	c.Groups[0].Offer = workerset.OfferMessage
	fd, _ := heldSocket(t)
	c.Sockets = map[string]int{"http": c.Sockets["http"], "other": fd}
}

// TestOffer: a program gets its sockets in messages, each when it has taken the one
// before. By default it is ready when it has taken all.
func TestOffer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	h := newForeign(t, "catch;read;"+nack+"read;"+ack+"read;wait "+file+";"+ack+"print taken;term;exit 0", func(c *workerset.Config) { offers(t, c) }).start()
	one := strings.Replace(offered, "%", "http", 1)
	h.printed(one + one + strings.Replace(offered, "%", "other", 1))
	if w := h.status().Workers[0]; w.State != "starting" {
		t.Errorf("%+v", w)
	}
	touch(t, file)
	h.state(1, "serving")
	h.stop()

	// It never arrives.
	h = newForeign(t, "catch;"+strings.Repeat("read;"+nack, 4)+"read;"+ack+"term;exit 0", func(c *workerset.Config) { offers(t, c) }).start()
	h.state(1, "serving")
	h.printed(one + one + one + one + strings.Replace(offered, "%", "other", 1))
	h.stop()
}

// TestOfferIsHandedOver: one parent has offered the first of two sockets, the next one
// offers the second.
func TestOfferIsHandedOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	h := newForeign(t, "catch;notify READY=1;read;wait "+file+";"+ack+"read;"+ack+"term;exit 0", func(c *workerset.Config) { offers(t, c) }).serve()
	h.printed("web/1 | read")
	next := h.trial(func(c *workerset.Config) {
		offers(t, c)
		c.Program.Path, c.Groups[0].Env = os.Args[0], []string{foreign("catch;notify READY=1;term;exit 0")}
	})
	e := h.yield()
	if err := next.set.Commit(h.ctx(), e); err != nil {
		t.Fatal(err)
	}
	h.abandon()
	touch(t, file)
	next.printed(strings.Replace(offered, "%", "other", 1))
	next.stop()
}

// TestClusterMessages: what a worker of cluster says, answered without a Node.
func TestClusterMessages(t *testing.T) {
	const online = `say {"cmd":"NODE_CLUSTER","act":"online","seq":0};`
	cluster := func(c *workerset.Config) { c.Groups[0].NodeChannel = workerset.NodeCluster }
	sock, addr := heldSocket(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	query := func(seq, port, more string) string {
		return `say {"cmd":"NODE_CLUSTER","act":"queryServer","seq":` + seq + `,"index":0,"address":null,"port":` + port + `,"addressType":4` + more + `};read;`
	}
	h := newSetOn(t, sock, addr, func(c *workerset.Config) {
		c.Program.Path = os.Args[0]
		c.Groups[0].Env = []string{foreign("env NODE_UNIQUE_ID;" + online + query("7", port, `,"data":"secret"`) + ack +
			query("8", "1", "") + query("9", port, `,"data":"another"`) + ack + query("10", "null", `,"fd":3`) + ack +
			`say {"cmd":"NODE_CLUSTER","act":"listening","seq":11};read;catch;end;print disconnected;term;exit 0`)}
		cluster(c)
	}).serve()
	h.printed("web/1 | NODE_UNIQUE_ID 1\n")
	native := `web/1 | read {"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","ack":`
	h.printed(native + `7,"key":"http:tcp://:` + port + `:0","data":"secret"}} with 1` + "\n" +
		`web/1 | read {"cmd":"NODE_CLUSTER","ack":8,"errno":-99} with 0` + "\n" +
		native + `9,"key":"http:tcp://:` + port + `:0","data":"secret"}} with 1` + "\n" +
		native + `10,"key":"http:descriptor 3:0","data":"secret"}} with 1` + "\n")
	// It is asked to disconnect, and gets the signal when it has.
	h.stop()
	h.printed(`web/1 | read {"cmd":"NODE_CLUSTER","act":"disconnect"} with 0` + "\nweb/1 | disconnected\nweb/1 | got terminated\n")

	// One that goes by itself says so first.
	file := filepath.Join(t.TempDir(), "first")
	h = newForeign(t, "catch;notify READY=1;first "+file+";"+online+`say {"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":1};read;exit 0`, cluster).start()
	if w := h.state(1, "exited"); w.Cause != "retire" || w.Exit != "exit status 0" {
		t.Errorf("%+v", w)
	}
	h.state(2, "serving")
	h.printed(`web/1 | read {"cmd":"NODE_CLUSTER","ack":1} with 0` + "\n")
	h.stop()

	// One that asks and does not take.
	ask := strings.TrimSuffix(query("1", "0", ""), "read;")
	h = newForeign(t, "catch;notify READY=1;"+strings.Repeat(ask, 300)+"term;exit 0", cluster).serve()
	h.logged("it asks for more sockets than it takes: 256 wait")
	h.stop()
}

// TestSuicideAndGone: a program that ends at once has failed as it has said, whatever of
// its end is heard of first.
func TestSuicideAndGone(t *testing.T) {
	t.Parallel()
	const n = 20
	h := newForeign(t, "notify READY=1;say "+suicide+";exit 1", func(c *workerset.Config) {
		c.Groups[0].Ready = workerset.Readiness{By: workerset.ReadyNotify}
	}).start()
	for id := 1; id <= n; id++ {
		if w := h.state(id, "exited"); w.Cause != "error" {
			t.Errorf("%+v", w)
		}
	}
	if log := h.log.String(); strings.Contains(log, "came to nothing") {
		t.Error("a slot has waited")
	}
}
