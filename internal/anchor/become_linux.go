package anchor

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/launch"
)

// Become executes this program again in this process, with the title in ps and the
// environment, which makes it call Run. It returns only if it can't.
func Become(title string, env []string) error {
	args, env := launch.Titled(title, env)
	return execute(launch.Self, args, env)
}

func execute(path string, args, env []string) error {
	err := syscall.Exec(path, args, launch.Environ(small(env)))
	return fmt.Errorf("execute %s as the anchor: %w (is /proc mounted?)", path, err)
}

// envFormer holds what small has changed in the environment, for the anchor's own
// image and nobody else.
const envFormer = "HANDOVER_ANCHOR_ENV"

// small makes the runtime of the process that gets the environment as small as can be
// (runtime, "Environment Variables"): with one processor, of which each has memory of its own,
// without huge pages, of which the first is larger than all that an anchor needs, and without
// a profile of its memory, which takes half a megabyte.
func small(env []string) []string {
	former := map[string]*string{"GOMAXPROCS": nil, "GODEBUG": nil}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		if _, ok := former[k]; ok {
			former[k] = &v
		}
	}
	b, _ := json.Marshal(former) // of strings
	debug := "disablethp=1,memprofilerate=0"
	if d := former["GODEBUG"]; d != nil && *d != "" {
		debug = *d + "," + debug
	}
	return append(env[:len(env):len(env)], "GOMAXPROCS=1", "GODEBUG="+debug, envFormer+"="+string(b))
}

// restore takes back what small has done to the environment: it is not for the parent.
func restore() {
	var former map[string]*string
	_ = json.Unmarshal([]byte(os.Getenv(envFormer)), &former)
	os.Unsetenv(envFormer)
	for k, v := range former {
		if v == nil {
			os.Unsetenv(k)
		} else {
			os.Setenv(k, *v)
		}
	}
}
