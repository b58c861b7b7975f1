package wire

import "encoding/json"

// Version is the version of the commands below. A worker says it in its State;
// nobody refuses another, since unknown fields and commands are skipped and a
// field never changes its meaning.
const Version = 2

// Commands between a parent and a worker. They begin with NODE_ so that Node
// keeps them from a program's message handler.
const (
	CmdState = "NODE_HANDOVER_STATE" // worker → parent: a State
	CmdWho   = "NODE_HANDOVER_WHO"   // parent → worker: say your State
	CmdGo    = "NODE_HANDOVER_GO"    // parent → worker: accept
	CmdHold  = "NODE_HANDOVER_HOLD"  // parent → worker: your failure is known, go on accepting until told to drain
	// CmdForgive: your failure is known and forgiven, go on as if nothing had been.
	CmdForgive = "NODE_HANDOVER_FORGIVE"
	CmdDrain   = "NODE_HANDOVER_DRAIN" // parent → worker: a Drain
	CmdExit    = "NODE_HANDOVER_EXIT"  // parent → worker: exit once you have drained
	// CmdStopping: the service is about to stop, so that its readiness fails from now
	// on; go on serving.
	CmdStopping = "NODE_HANDOVER_STOPPING"
	CmdMoves    = "NODE_HANDOVER_MOVES" // parent → worker: a Moves
	// CmdConnect comes with the other end of a connection: a Connect.
	CmdConnect = "NODE_HANDOVER_CONNECT"
	CmdService = "NODE_HANDOVER_SERVICE" // parent → worker: a Service
	// CmdMessage, both ways, comes with its files: a Message.
	CmdMessage = "NODE_HANDOVER_MESSAGE"
	CmdDone    = "NODE_HANDOVER_DONE"  // worker → parent: a Result, of a message that it was given
	CmdAgain   = "NODE_HANDOVER_AGAIN" // worker → parent: an Again, of one that it has not begun with and won't
	CmdSent    = "NODE_HANDOVER_SENT"  // parent → worker: a Result, of a message that it has sent
	CmdMail    = "NODE_HANDOVER_MAIL"  // worker → parent: a Mail, before a State that was asked for with it
)

// Bounds of what one peer, a worker or the parent, may have under way: what it has sent
// and has no result of. They are part of the protocol: who exceeds them is faulty.
const (
	MessageWindow   = 64      // messages, and also files with them
	MessageBytes    = 4 << 20 // of data; there may always be one message
	MessageFiles    = 16      // files with one message
	MessageTypeSize = 256     // bytes of a type
)

// Environment variables of a worker.
const (
	Env          = "HANDOVER_CHANNEL_FD"   // the number of its channel
	EnvWho       = "HANDOVER_WORKER"       // GROUP/SLOT/ID/GENERATION
	EnvAccept    = "HANDOVER_ACCEPT"       // set: it need not wait for CmdGo
	EnvCrash     = "HANDOVER_CRASH_FD"     // where the Go runtime is to write when it dies
	EnvHeartbeat = "HANDOVER_HEARTBEAT_MS" // milliseconds, see State.BeatMS
	EnvKeep      = "HANDOVER_KEEP"         // set: it stays after a failure that it can go on after
	// EnvQueues: by which connections move between workers. NAME=GIVE,TAKE for each
	// socket that has a queue, separated by spaces: the numbers of its two ends.
	EnvQueues  = "HANDOVER_QUEUES"
	EnvTickets = "HANDOVER_TICKETS_FD" // the file of the keys of TLS session tickets
	// EnvHome: where it reports when its parent has died, see package home: the number of
	// the end to report by, and then NAME=NUMBER for what it takes there beside what is its
	// own, separated by spaces.
	EnvHome   = "HANDOVER_HOME"
	EnvRecipe = "HANDOVER_RECIPE"   // what its generation was made of, to be reported there
	EnvGrace  = "HANDOVER_GRACE_MS" // how long it waits for another parent, in milliseconds
)

// Phase is what a worker says that it does.
type Phase string

const (
	PhaseStarting Phase = "starting" // not ready
	PhaseReady    Phase = "ready"    // could serve, waits for CmdGo
	PhaseServing  Phase = "serving"  // accepts
	PhaseDraining Phase = "draining" // does not accept, finishes what it has
	PhaseDrained  Phase = "drained"  // has nothing left, waits for CmdExit
	PhaseExiting  Phase = "exiting"  // its last word
)

// Cause is why a worker asked to be replaced, or was found to need it.
type Cause string

const (
	CauseRetire       Cause = "retire"        // it got a SIGTERM: no failure
	CauseDone         Cause = "done"          // the app returned without an error
	CauseError        Cause = "error"         // the app returned an error, or called Fail
	CausePanic        Cause = "panic"         // a goroutine started by Worker.Go panicked
	CauseHandlerPanic Cause = "handler panic" // an HTTP handler panicked
	CauseSignal       Cause = "signal"        // killed by a signal
	CauseExit         Cause = "exit"          // exited without having asked
	CauseStartExit    Cause = "exit at start" // exited before it was ready
	CauseStartTimeout Cause = "start timeout" // not ready in time
	CauseSpawn        Cause = "not started"   // its process could not be started
	CauseChannel      Cause = "channel"       // garbage on its channel
	CauseCrash        Cause = "crash"         // the runtime ended it: a panic in a goroutine that nobody manages, a fatal error
	CauseHung         Cause = "hung"          // it has not said for too long that it lives
	CauseRecycle      Cause = "recycle"       // it has reached a limit, well as it is
)

// Causes are all that there are, but a worker may call one by a name of its own.
var Causes = []Cause{
	CauseRetire, CauseDone, CauseError, CausePanic, CauseHandlerPanic, CauseSignal, CauseExit,
	CauseStartExit, CauseStartTimeout, CauseSpawn, CauseChannel, CauseCrash, CauseHung, CauseRecycle,
}

// Failure reports whether the cause is one. The others are exits that were asked
// for.
func (c Cause) Failure() bool {
	return c != "" && c != CauseRetire && c != CauseDone && c != CauseRecycle
}

// State is all that a worker has to say about itself. It is sent whole at every
// change and when asked, so that one that gets lost or that another parent read
// does no harm.
type State struct {
	Cmd        string `json:"cmd"`
	Version    int    `json:"v"`
	Pid        int    `json:"pid"`
	ID         int    `json:"id"`
	Group      string `json:"group"`
	Slot       int    `json:"slot"`
	Generation int    `json:"generation"`
	Phase      Phase  `json:"phase"`
	// Cause and Reason are set from the moment at which it asks to be replaced.
	Cause  Cause  `json:"cause,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Nth counts the causes, from 1: what has the same number is the same one, said
	// again. Without it a worker can't be forgiven.
	Nth int `json:"nth,omitempty"`
	// Fatal: it can't go on, even if it were forgiven.
	Fatal bool `json:"fatal,omitempty"`
	// ExitCode is its exit status, from PhaseExiting on.
	ExitCode int `json:"exit,omitempty"`
	// Active are open connections, Served those that it accepted and packets that it
	// read, Cut connections that were closed because the drain's time was up.
	Active int `json:"active,omitempty"`
	Served int `json:"served,omitempty"`
	Cut    int `json:"cut,omitempty"`
	// Of the open connections, Idle wait for a request and Hijacked are a handler's.
	// MovedIn came from other workers, MovedOut went to them.
	Idle     int `json:"idle,omitempty"`
	Hijacked int `json:"hijacked,omitempty"`
	MovedIn  int `json:"movedIn,omitempty"`
	MovedOut int `json:"movedOut,omitempty"`
	// Requests are those of HTTP that it has begun to serve, and what counts as one where
	// there are none: connections that other servers have accepted, and packets.
	Requests int `json:"requests,omitempty"`
	// Open are some of the connections that keep it from ending, in PhaseDraining.
	Open []OpenConn `json:"open,omitempty"`
	// BeatMS, if set, is the promise to say the state again at least so often, in
	// milliseconds.
	BeatMS int64 `json:"beat,omitempty"`
}

// MaxOpen is how many connections a State names.
const MaxOpen = 16

// OpenConn is a connection that is open.
type OpenConn struct {
	Peer  string `json:"peer,omitempty"` // the client's address
	State string `json:"state"`          // new, idle, active, hijacked or open, for people
	AgeMS int64  `json:"age"`            // in milliseconds
}

// Drain tells a worker to stop accepting and to finish what it has.
type Drain struct {
	Cmd string `json:"cmd"`
	// TimeoutMS is the time in milliseconds after which what is left is cut; 0
	// is the worker's own default.
	TimeoutMS int64 `json:"timeout,omitempty"`
	// Exit: it may exit when it has drained. Otherwise it waits for CmdExit.
	Exit bool `json:"mayExit,omitempty"`
	// Stop: nobody accepts after it, so it accepts what is queued before it stops.
	Stop bool `json:"stop,omitempty"`
}

// Moves says what a worker is to do with connections that can move. One that has not
// been told is MoveShare from when it accepts.
type Moves struct {
	Cmd string `json:"cmd"`
	Do  Move   `json:"do"`
}

// Move is a worker's part in the moving of connections. What is unknown is MoveStay.
type Move string

const (
	MoveStay  Move = "stay"  // it takes none; said to one that drains already, it is MoveKeep
	MoveTake  Move = "take"  // it takes what others give away; in a drain its own are closed after the lame-duck time
	MoveShare Move = "share" // as MoveTake, among others who do: the fewer connections it has, the sooner
	MoveKeep  Move = "keep"  // in a drain it keeps its own open: somebody will take them, but does not yet
	MoveGive  Move = "give"  // in a drain it gives its own away as soon as they wait for a request
)

// Connect gives a worker a connection to serve as if its socket had accepted it,
// also before it may accept. It is one descriptor.
type Connect struct {
	Cmd    string `json:"cmd"`
	Socket string `json:"socket"`
}

// Service is what a worker is told of the whole service. It is said whole at every
// change.
type Service struct {
	Cmd        string `json:"cmd"`
	Generation int    `json:"generation"` // that of the parent
	// Ready: every group has had all its workers serving.
	Ready bool `json:"ready,omitempty"`
	// Helpers are the workers that serve in groups which others wait for.
	Helpers []Helper `json:"helpers,omitempty"`
}

// Helper is one of them.
type Helper struct {
	Group      string `json:"group"`
	Slot       int    `json:"slot"`
	ID         int    `json:"id"`
	Generation int    `json:"generation"`
	Pid        int    `json:"pid"`
}

// Message is a message of the application's. Its files come with it.
type Message struct {
	Cmd string `json:"cmd"`
	// N is its number: on the way to the parent one of the sender's, on the way to a
	// worker one of the parent's. They count from 1.
	N    int     `json:"n"`
	To   Address `json:"to,omitzero"`   // on the way to the parent
	From Sender  `json:"from,omitzero"` // on the way to a worker
	Type string  `json:"type"`
	// Data is any JSON value.
	Data  json.RawMessage `json:"data,omitempty"`
	Files int             `json:"files,omitempty"` // how many come with it
}

// Address says who is to get a message.
type Address struct {
	To    To     `json:"to"`
	Group string `json:"group,omitempty"`
	Slot  int    `json:"slot,omitempty"`
}

// To is a kind of address.
type To string

// The kinds. Slot, Group, and Any for one worker of it, name a group.
const (
	ToParent To = "parent"
	ToSlot   To = "slot"
	ToGroup  To = "group"
	ToAny    To = "any"
	ToAll    To = "all"
)

// Sender is who sent a message: a worker, or with the zero value the parent.
type Sender struct {
	Group      string `json:"group,omitempty"`
	Slot       int    `json:"slot,omitempty"`
	ID         int    `json:"id,omitempty"`
	Generation int    `json:"generation,omitempty"`
}

// Result is what became of a message.
type Result struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n"`
	// Data is the handler's answer.
	Data json.RawMessage `json:"data,omitempty"`
	// Why is why there is none, and Text says it to people.
	Why  Why    `json:"why,omitempty"`
	Text string `json:"text,omitempty"`
}

// Why is the reason for a message not having been handled well. What is unknown is
// WhyLost.
type Why string

const (
	WhyHandler   Why = "handler"   // its handler returned an error
	WhyUnhandled Why = "unhandled" // nobody there handles messages of that type
	WhyAddress   Why = "address"   // there is nobody of that address
	WhyGone      Why = "gone"      // whoever was to get it is gone for good, and has not begun with it
	WhyLost      Why = "lost"      // whoever had it has died: it may or may not have been handled
	WhyRefused   Why = "refused"   // it is not as it has to be
)

// Again gives a message back.
type Again struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n"`
}

// Mail is what a worker has to say of its messages to a parent that may have missed
// something.
type Mail struct {
	Cmd string `json:"cmd"`
	N   int    `json:"n,omitempty"` // that of the Who
	// Sent are those of its own whose result it waits for, Have those that it was given
	// and is not done with, Done some that it was done with lately. Of those with a number
	// up to Forgot it may have been done with others.
	Sent   []int `json:"sent,omitempty"`
	Have   []int `json:"have,omitempty"`
	Done   []int `json:"done,omitempty"`
	Forgot int   `json:"forgot,omitempty"`
}

// Who asks a worker for its state.
type Who struct {
	Cmd string `json:"cmd"`
	// Mail: and before that for its Mail, which says the same N.
	Mail bool `json:"mail,omitempty"`
	N    int  `json:"n,omitempty"`
}

// Order is a command without content.
type Order struct {
	Cmd string `json:"cmd"`
}
