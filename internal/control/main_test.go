//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/logs"
)

// envChild makes the test binary one of the programs that the tests start.
const envChild = "CONTROL_TEST_CHILD"

func TestMain(m *testing.M) {
	giveTime = 3 * time.Second
	switch os.Getenv(envChild) {
	case "":
		goleak.VerifyTestMain(m)
	case "ask":
		askMain()
	case "act":
		actMain()
	case "watch on":
		watchOnMain()
	}
	os.Exit(0)
}

// patience bounds every wait.
const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// fake is a service.
type fake struct {
	why      string // it is not ready
	status   func() (Status, error)
	watchers chan *Watcher
	wishes   chan Wish
	history  []history.Entry
	logs     logs.Book
	unkept   []logs.Worker
}

func (f *fake) Ready(context.Context) (bool, string)   { return f.why == "", f.why }
func (f *fake) Status(context.Context) (Status, error) { return f.status() }
func (f *fake) Upgrade(w *Watcher, wait Wait)          { f.watchers <- w }
func (f *fake) Rollback(w *Watcher, wait Wait)         { f.watchers <- w }
func (f *fake) Act(wish Wish, w *Watcher)              { f.wishes <- wish; f.watchers <- w }
func (f *fake) History() []history.Entry               { return f.history }
func (f *fake) Logs() *logs.Book                       { return &f.logs }

func (f *fake) Unkept(context.Context) ([]logs.Worker, error) { return slices.Clone(f.unkept), nil }

// serve answers on a socket until the test's end.
func serve(t *testing.T, path string, f *fake) *Server {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(f, slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.Serve(ln)
	t.Cleanup(s.Close)
	return s
}

// socket is a path for one, short enough.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// askMain asks for the status and says what comes of it.
func askMain() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, _, err := NewClient(os.Args[1]).Status(ctx)
	fmt.Printf("%q %v\n", st.Service, err)
}

// actMain asks for a restart and says what comes of it.
func actMain() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	last, err := NewClient(os.Args[1]).Act(ctx, Wish{Verb: Restart}, func(Event) {})
	fmt.Printf("%q %v\n", last.Result, err)
}

// watchOnMain goes on with the watcher on descriptor 3, as the next parent does.
func watchOnMain() {
	w, err := ResumeWatcher(os.NewFile(3, "watcher"))
	n, aerr := strconv.Atoi(os.Args[1])
	if err := errors.Join(err, aerr); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := range n {
		w.Tell(Event{Generation: 2, Text: fmt.Sprint("new ", i)})
	}
	w.End(Event{Generation: 2, Result: Done})
}
