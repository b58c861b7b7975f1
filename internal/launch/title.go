package launch

import (
	"os"
	"path/filepath"
)

// envArgv0 carries the program's own name past a title in argv[0].
const envArgv0 = "HANDOVER_ARGV0"

// A process of ours shows its role in ps by argv[0]; the program is to see the
// name that it was called by. This runs before any package that imports this
// one looks at os.Args.
func init() {
	if name, ok := os.LookupEnv(envArgv0); ok {
		os.Unsetenv(envArgv0)
		if len(os.Args) == 0 {
			os.Args = make([]string, 1)
		}
		os.Args[0] = name
		// The kernel took it from the path that was executed, which for Self
		// is "exe"; top, pgrep and killall go by it.
		setComm(filepath.Base(name))
	}
}

// Titled returns argv and environment for a process of this program, or of its
// next version, that shows title in ps and sees the same os.Args as this one.
func Titled(title string, env []string) (argv, environ []string) {
	name := title
	argv = []string{title}
	if len(os.Args) > 0 { // execve(2) allows none
		name = os.Args[0]
		argv = append(argv, os.Args[1:]...)
	}
	return argv, append(env[:len(env):len(env)], envArgv0+"="+name)
}
