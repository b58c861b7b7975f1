// Package control is how a person or a script asks a running service: HTTP with
// JSON on a unix socket.
//
//	GET  /v1/status    a Status
//	GET  /v1/ready     200 if clients should come, 503 and a reason if not: no worker
//	                   accepts, or the service is about to stop
//	GET  /v1/history   a History; ?worker=WORKER, see ParseSelector; ?entry=N, ?limit=N
//	GET  /v1/logs      Logs of the workers; ?worker=WORKER, ?n=LINES, ?after=N: those after
//	                   the line of that number; with ?follow=1 a stream of Followed, one
//	                   JSON object a line, which ends when another parent answers: ask it
//	GET  /metrics      OpenMetrics, or Prometheus' text format
//	POST /v1/upgrade   a stream of Events, one JSON object a line, until the last
//	                   one, which has a Result; ?wait= says when that is: serve, or
//	                   probation, which is the default
//	POST /v1/rollback  the same, of the way back to the previous generation
//	POST /v1/restart, scale, drain, kill, stop, reopen
//	                   streams of Events, too: see Wish, and docs/control.md
//
// What is asked with GET may also be asked by everybody who reaches an address of the
// network, if the service has one for that (NewPublicServer).
//
// Only the service's user and root may act, and connect, too, unless a group may read: the
// socket's mode is 0600 or 0660, and the peer's user is looked at. The socket is inherited over upgrades like every other,
// so that there is always somebody who answers; an upgrade that is being watched
// takes its watchers' connections along to the next parent.
//
// A field never changes its meaning; unknown ones are to be skipped.
package control

import (
	"time"

	"github.com/handover-go/handover/internal/image"
	"github.com/handover-go/handover/workerset"
)

// Status is what there is to say of a service.
type Status struct {
	Service    string                  `json:"service"`
	Generation int                     `json:"generation"`
	Since      time.Time               `json:"since"` // when this generation began to decide
	Pid        int                     `json:"pid"`   // the parent's
	Anchor     int                     `json:"anchor,omitempty"`
	Program    string                  `json:"program"` // what the workers execute
	Listen     []string                `json:"listen"`  // NAME=NETWORK://ADDRESS
	Upgrading  bool                    `json:"upgrading,omitempty"`
	Stopping   bool                    `json:"stopping,omitempty"`
	Groups     []workerset.GroupStatus `json:"groups"`
	// Build is what this parent executes.
	Build image.Build `json:"build,omitzero"`
	// Warnings say, for people, what is not as it should be, such as a program on disk that
	// is not the one that runs.
	Warnings []string `json:"warnings,omitempty"`
	// Upgrade is the last one that was tried, if there was one.
	Upgrade *Outcome `json:"upgrade,omitempty"`
	// Previous is the generation that a rollback leads back to, if there is one.
	Previous int `json:"previous,omitempty"`
}

// Wait is how long somebody wants to be told of an upgrade.
type Wait string

const (
	// WaitServe: until the workers of the new generation have replaced the older ones.
	WaitServe Wait = "serve"
	// WaitProbation: until the new generation has proven itself. What is neither is this.
	WaitProbation Wait = "probation"
)

// Outcome is how an upgrade ended.
type Outcome struct {
	Time       time.Time `json:"time"`
	Began      time.Time `json:"began,omitzero"`
	Generation int       `json:"generation"` // that it was to lead to
	Result     Result    `json:"result"`
	Reason     string    `json:"reason,omitempty"`
	Until      time.Time `json:"until,omitzero"` // of Probation
}

// Result of an upgrade.
type Result string

const (
	// Done: all workers of the new generation serve, and no older one accepts; and it has
	// proven itself, if that was waited for.
	Done Result = "done"
	// Failed: nothing has changed.
	Failed Result = "failed"
	// Stopped: the new generation decides, but its workers could not replace all of
	// the older ones, which go on serving.
	Stopped Result = "stopped"
	// Rolling: the new generation decides and replaces the workers. It is no Event's
	// result, but may be an Outcome's.
	Rolling Result = "rolling"
	// Probation: its workers serve, and it has to prove itself. It is an Outcome's alone,
	// too.
	Probation Result = "probation"
	// RolledBack: the new generation decided, but has failed its probation, or somebody
	// has asked for the way back; the one before it serves again.
	RolledBack Result = "rolled-back"
	// Moved: the process that was asked has just been replaced. Ask again.
	Moved Result = "moved"
)

// Final reports whether nothing else can become of it.
func (r Result) Final() bool { return r != Rolling && r != Probation }

// Event is a step of an upgrade. The last one has a Result.
type Event struct {
	Time       time.Time `json:"time"`
	Generation int       `json:"generation,omitempty"` // the new one
	Text       string    `json:"text,omitempty"`       // for people
	Result     Result    `json:"result,omitempty"`
	Reason     string    `json:"reason,omitempty"` // of Failed, Stopped and RolledBack
	Output     string    `json:"output,omitempty"` // an excerpt of what the new program printed
}
