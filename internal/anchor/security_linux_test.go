package anchor

import (
	"fmt"
	"os"
	"testing"
)

// TestAnotherUser: a worker that is another user's can't become the parent when there is none,
// nor hold up the next one: its program would be executed by the anchor.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	w, a := start(t)
	a.notify("READY=1")
	b := w.spawn(a, markSuccessor+"3")
	if got := b.ask("user 65534"); got != "user <nil>" {
		t.Fatal(got)
	}
	b.notify(fmt.Sprintf("MAINPID=%d", b.pid), "READY=1", varFormat+"="+format)
	w.logged("notifications of another user are ignored")
	a.tell("kill 9")
	a.gone()
	b.notify(fmt.Sprintf("MAINPID=%d", b.pid), "READY=1", varFormat+"="+format)
	next := w.accept() // at once
	b.notify(fmt.Sprintf("MAINPID=%d", b.pid))
	next.notify("READY=1")
	if got := b.ask("ping"); got != "pong" {
		t.Error(got)
	}
	b.tell("exit 0")
	next.tell("exit 5")
	w.exit(5)
}

// TestAnswerNeverWaits: who asks how a process has ended, and lets nobody write the answer,
// does not stop the anchor.
func TestAnswerNeverWaits(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	b := w.spawn(a)
	c := w.spawn(b)
	b.tell("exit 0")
	if got := a.ask("reap %d", b.pid); got != "exit status 0" {
		t.Error(got)
	}
	c.tell("exit 3")
	if !until(func() bool { return !alive(c.pid) }) {
		t.Errorf("process %d does not end", c.pid)
	}
	before := openFiles(fmt.Sprint(w.anchor.Pid))
	if got := a.ask("full %d", c.pid); got != "asked <nil>" {
		t.Error(got)
	}
	if after := openFiles(fmt.Sprint(w.anchor.Pid)); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
	a.tell("exit 0")
	w.exit(0)
}
