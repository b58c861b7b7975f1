package upgrader

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"syscall"
	"time"
	"unsafe"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
)

// What this package knows of tableflip beyond its exported API.
const (
	tableflipVersion = "github.com/cloudflare/tableflip v1.2.3"
	tableflipEnv     = "TABLEFLIP_HAS_PARENT_7DIU3" // set in a process that tableflip starts
	tableflipReady   = 42                           // the byte that this process then sends on descriptor 3
)

// errBareTableflip: what there is to inherit can't be had.
var errBareTableflip = errors.New("the program before this one upgrades by tableflip alone and can't hand its sockets to this one: restart the service once")

// newTableflip makes tableflip's part of an upgrader, which starts processes
// through fn. succeeds says whether this process has a predecessor that knows the
// succession.
func newTableflip(succeeds bool, fn spawner) (*tableflip.Upgrader, error) {
	if !succeeds {
		if os.Getenv(tableflipEnv) != "" && isPipe(3, unix.O_WRONLY) && isPipe(4, unix.O_RDONLY) {
			return nil, errBareTableflip
		}
		// Inherited from further up, not meant for this process.
		os.Unsetenv(tableflipEnv)
	}
	// The deadline is ours; tableflip's is set out of the way.
	tf, err := tableflip.New(tableflip.Options{UpgradeTimeout: 1000 * time.Hour})
	os.Unsetenv(tableflipEnv)
	if err != nil {
		return nil, err
	}
	if succeeds {
		// tableflip leaves its two pipes open over exec.
		syscall.CloseOnExec(3)
		syscall.CloseOnExec(4)
	}
	if launch.Supported {
		err = injectSpawner(tf, fn)
	}
	return tf, err
}

// isPipe reports whether fd is an end of a pipe, open as mode says.
func isPipe(fd, mode int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == mode
}

// spawner starts the process that tableflip wants to start.
type spawner func(files []*os.File, env []string) (process, error)

// process is what tableflip asks of a process. It has the same methods as
// tableflip's own, unexported interface.
type process interface {
	String() string
	Signal(os.Signal) error
	Wait() error
}

// injectSpawner makes up start processes through fn.
//
// tableflip keeps the operating system behind five functions, for its own tests;
// this replaces the one that starts a process. What it does by itself would leave
// us without the new program's pid until it dies, without its exit status and its
// output when it fails, in a working directory that may be gone, with the errors
// as text, and unable to refuse what it hears. The ways around that without this function were a second exec
// of the old program (2 ms on every upgrade) or temporary changes to descriptors
// 1 and 2 and to os.Args of a live process. docs/decisions.md has the figures.
//
// The field is found by name and its type is checked, so another tableflip gives
// an error here and not a surprise later.
//
// up is a *tableflip.Upgrader.
func injectSpawner(up any, fn spawner) error {
	fail := func(what string) error {
		return fmt.Errorf("this tableflip has no %s: use %s", what, tableflipVersion)
	}
	env := reflect.ValueOf(up).Elem().FieldByName("env")
	if !env.IsValid() || env.Kind() != reflect.Pointer || env.IsNil() || env.Elem().Kind() != reflect.Struct {
		return fail("field env")
	}
	field := env.Elem().FieldByName("newProc")
	if !field.IsValid() {
		return fail("field env.newProc")
	}
	t := field.Type()
	if t.Kind() != reflect.Func || t.NumOut() != 2 || t.Out(0).Kind() != reflect.Interface ||
		!reflect.TypeFor[process]().Implements(t.Out(0)) || t.Out(1) != reflect.TypeFor[error]() ||
		t.NumIn() != 4 || t.In(0) != reflect.TypeFor[string]() || t.In(1) != reflect.TypeFor[[]string]() ||
		t.In(2) != reflect.TypeFor[[]*os.File]() || t.In(3) != reflect.TypeFor[[]string]() {
		return fail("func env.newProc(string, []string, []*os.File, []string) (process, error)")
	}
	impl := reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		proc, perr := reflect.Zero(t.Out(0)), reflect.Zero(t.Out(1))
		p, err := fn(args[2].Interface().([]*os.File), args[3].Interface().([]string))
		if err == nil && p == nil {
			err = errors.New("no process")
		}
		if err != nil {
			perr = reflect.ValueOf(&err).Elem()
		} else {
			proc = reflect.ValueOf(p).Convert(t.Out(0))
		}
		return []reflect.Value{proc, perr}
	})
	// Unexported, so reflect refuses Set; the address is the same field's.
	reflect.NewAt(t, unsafe.Pointer(field.UnsafeAddr())).Elem().Set(impl)
	return nil
}
