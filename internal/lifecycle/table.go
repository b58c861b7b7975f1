package lifecycle

// cell is one entry of the table.
type cell struct {
	next   State
	effect Effect
}

// row has an entry for every event, so that nothing is decided by omission;
// a test counts them.
type row map[Event]cell

// table is the whole policy about one worker. stay(s) is "nothing changes".
var table = [numStates]row{
	Spawning: {
		Spawned:     {Starting, Arm},
		SpawnFailed: {Exited, Report},
		Ready:       stay(Spawning),
		Commit:      stay(Spawning),
		// What it does is asked for; until it has answered it counts as serving,
		// since nothing that is adopted may be mistaken for missing.
		Adopted:   {Serving, Ask | Report},
		Failed:    stay(Spawning),
		Tolerated: stay(Spawning),
		Hung:      stay(Spawning),
		Leaving:   stay(Spawning),
		// There is nothing to signal yet: Killing + Spawned does it.
		Retire:   {Killing, 0},
		Replaced: stay(Spawning),
		Drained:  stay(Spawning),
		Lost:     stay(Spawning),
		Deadline: stay(Spawning),
		Kill:     {Killing, 0},
		Died:     {Exited, Report},
		Stop:     {Killing, 0},
	},
	Starting: {
		Spawned:     stay(Starting),
		SpawnFailed: stay(Starting),
		Ready:       {Standby, Disarm},
		Commit:      stay(Starting),
		Adopted:     stay(Starting),
		// It has never served, so there is nothing to wait for.
		Failed: {Draining, Arm | SendDrain | SendExit | Report},
		// A failure of one that never served is not tolerated, it is Failed.
		Tolerated: stay(Starting),
		Hung:      {Terminating, Arm | SignalAbrt | Report},
		Leaving:   {Draining, Arm | SendExit | Report},
		Retire:    {Draining, Arm | SendDrain | SendExit},
		Replaced:  stay(Starting),
		Drained:   {Draining, Arm | SendExit | Report},
		Lost:      {Draining, Arm | CloseChan},
		// To a library worker SIGTERM means "retire", so it is also told that
		// it need not wait for anybody; else it would wait until it is killed.
		Deadline: {Terminating, Arm | SendDrain | SendExit | SignalTerm | Report},
		Kill:     {Killing, Arm | SignalKill},
		Died:     {Exited, Disarm | Report},
		Stop:     {Draining, Arm | SendDrain | SendExit},
	},
	Standby: {
		Spawned:     stay(Standby),
		SpawnFailed: stay(Standby),
		Ready:       stay(Standby),
		Commit:      {Serving, SendGo | Report},
		Adopted:     stay(Standby),
		Failed:      {Draining, Arm | SendDrain | SendExit | Report},
		Tolerated:   stay(Standby),
		Hung:        {Terminating, Arm | SignalAbrt | Report},
		Leaving:     {Draining, Arm | SendExit | Report},
		Retire:      {Draining, Arm | SendDrain | SendExit},
		Replaced:    stay(Standby),
		Drained:     {Draining, Arm | SendExit | Report},
		Lost:        {Draining, Arm | CloseChan},
		Deadline:    stay(Standby),
		Kill:        {Killing, Arm | SignalKill},
		Died:        {Exited, Report},
		Stop:        {Draining, Arm | SendDrain | SendExit},
	},
	Serving: serving(Serving, cell{Degraded, SendForgive | Report}),
	// A storm of failures must not flood the log.
	Degraded: serving(Degraded, cell{Degraded, SendForgive}),
	Condemned: {
		Spawned:     stay(Condemned),
		SpawnFailed: stay(Condemned),
		Ready:       stay(Condemned),
		Commit:      stay(Condemned),
		Adopted:     stay(Condemned),
		Failed:      {Condemned, SendHold},
		// Forgiven once, it has failed anew. It is being replaced already, but it
		// waits for an answer all the same.
		Tolerated: {Condemned, SendHold},
		Hung:      {Terminating, Arm | SignalAbrt | Report},
		Leaving:   {Draining, Arm | Report},
		// Told to drain before its replacement serves: it may exit only at
		// Draining + Replaced.
		Retire:   {Draining, Arm | SendDrain},
		Replaced: {Draining, Arm | SendDrain | SendExit},
		Drained:  {Draining, Arm | Report},
		Lost:     {Draining, Arm | CloseChan},
		Deadline: stay(Condemned),
		Kill:     {Killing, Arm | SignalKill},
		Died:     {Exited, Report},
		Stop:     {Draining, Arm | SendDrain | SendExit},
	},
	Draining: {
		Spawned:     stay(Draining),
		SpawnFailed: stay(Draining),
		Ready:       stay(Draining),
		Commit:      stay(Draining),
		Adopted:     stay(Draining),
		Failed:      stay(Draining),
		Tolerated:   stay(Draining),
		Hung:        {Terminating, Arm | SignalAbrt | Report},
		Leaving:     stay(Draining),
		Retire:      {Draining, SendDrain | SendExit},
		Replaced:    {Draining, SendExit},
		Drained:     stay(Draining),
		Lost:        {Draining, CloseChan},
		// As in Starting: what it has is cut now, and its replacement is late.
		Deadline: {Terminating, Arm | SendExit | SignalTerm | Report},
		Kill:     {Killing, Arm | SignalKill},
		Died:     {Exited, Disarm | Report},
		Stop:     {Draining, SendDrain | SendExit},
	},
	Terminating: {
		Spawned:     stay(Terminating),
		SpawnFailed: stay(Terminating),
		Ready:       stay(Terminating),
		Commit:      stay(Terminating),
		Adopted:     stay(Terminating),
		Failed:      stay(Terminating),
		Tolerated:   stay(Terminating),
		Hung:        stay(Terminating),
		Leaving:     stay(Terminating),
		Retire:      stay(Terminating),
		Replaced:    stay(Terminating),
		Drained:     stay(Terminating),
		Lost:        {Terminating, CloseChan},
		Deadline:    {Killing, Arm | SignalKill | Report},
		Kill:        {Killing, Arm | SignalKill},
		Died:        {Exited, Disarm | Report},
		Stop:        stay(Terminating),
	},
	Killing: {
		Spawned:     {Killing, Arm | SignalKill},
		SpawnFailed: {Exited, Report},
		Ready:       stay(Killing),
		Commit:      stay(Killing),
		Adopted:     stay(Killing),
		Failed:      stay(Killing),
		Tolerated:   stay(Killing),
		Hung:        stay(Killing),
		Leaving:     stay(Killing),
		Retire:      stay(Killing),
		Replaced:    stay(Killing),
		Drained:     stay(Killing),
		Lost:        {Killing, CloseChan},
		// A process in uninterruptible sleep dies when it wakes; say so again.
		Deadline: {Killing, Arm | SignalKill | Report},
		Kill:     stay(Killing),
		Died:     {Exited, Disarm | Report},
		Stop:     stay(Killing),
	},
	Exited: {
		Spawned:     stay(Exited),
		SpawnFailed: stay(Exited),
		Ready:       stay(Exited),
		Commit:      stay(Exited),
		Adopted:     stay(Exited),
		Failed:      stay(Exited),
		Tolerated:   stay(Exited),
		Hung:        stay(Exited),
		Leaving:     stay(Exited),
		Retire:      stay(Exited),
		Replaced:    stay(Exited),
		Drained:     stay(Exited),
		Lost:        stay(Exited),
		Deadline:    stay(Exited),
		Kill:        stay(Exited),
		Died:        stay(Exited),
		Stop:        stay(Exited),
	},
}

// serving is the row of a worker that accepts and may be relied on. Serving and
// Degraded differ only in how loud a failure is that is tolerated.
func serving(s State, tolerated cell) row {
	return row{
		// Adopted, it was taken for serving; asked, it says that it is only
		// starting, or that it waits to be told to accept.
		Spawned:     {Starting, Arm},
		SpawnFailed: stay(s),
		Ready:       {s, SendGo},
		Commit:      stay(s),
		Adopted:     stay(s),
		Failed:      {Condemned, SendHold | Report},
		Tolerated:   tolerated,
		Hung:        {Terminating, Arm | SignalAbrt | Report},
		// No SendExit: it is to stay until its replacement serves.
		Leaving:  {Draining, Arm | Report},
		Retire:   {Draining, Arm | SendDrain | SendExit},
		Replaced: stay(s),
		Drained:  {Draining, Arm | Report},
		Lost:     {Draining, Arm | CloseChan},
		Deadline: stay(s),
		Kill:     {Killing, Arm | SignalKill},
		Died:     {Exited, Report},
		Stop:     {Draining, Arm | SendDrain | SendExit},
	}
}

func stay(s State) cell { return cell{s, 0} }
