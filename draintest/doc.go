// Package draintest tests that clients do not notice when a server is restarted: any
// server, in any language.
//
//	func TestReload(t *testing.T) {
//		draintest.Run(t, draintest.Config{
//			Command: []string{"./shop", "--listen", "127.0.0.1:8080"},
//			Load:    load.Config{Addr: "127.0.0.1:8080"},
//			Action:  draintest.Signal(syscall.SIGHUP),
//		})
//	}
//
// It starts the program, or finds one that runs ([Config.PIDFile]), waits until it
// answers, and loads it with strict clients (package load). Then come the rounds: in each
// the action is done, and the server has to answer by another process, to be rid of the old
// one, and to go on answering every kind of client. At the end there is a [Report], with a
// [Verdict]:
//
//   - [Pass]: no request failed, no idle connection was closed, every round has changed
//     the process that serves, and nothing was left behind: no process, no zombie, no
//     descriptor more in every round.
//   - [Fail]: something of that is not so. The findings say what, when, and what usually
//     causes it.
//   - [Untested]: the test proves nothing. There were no requests, it could not be
//     seen whether the action did anything, or the load could not keep its rate.
//
// # How a change is seen
//
// By a header in the answers (X-Worker, or Load.WorkerHeader), if there is one, with a value
// that was not there before; and by the processes, on Linux: a new one in the program's tree. Who belongs to
// the tree is told by the parent, and, of a process whose parent has ended, by a
// variable in the environment that it inherits from the program's start.
//
// # Processes
//
// To keep those whose parent ends, this process becomes their reaper (see
// [procs.Subreaper]) and stays it. When the test is over the program gets SIGTERM, and
// after a time SIGKILL, as does what is left of it. A server that was found running is left
// alone.
package draintest
