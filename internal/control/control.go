// Package control is how a person or a script asks a running service: HTTP with
// JSON on a unix socket.
//
//	GET  /v1/status    a Status
//	GET  /v1/ready     200 if clients should come, 503 and a reason if not: no worker
//	                   accepts, or the service is about to stop
//	GET  /metrics      OpenMetrics, or Prometheus' text format
//	POST /v1/upgrade   a stream of Events, one JSON object a line, until the last
//	                   one, which has a Result
//
// What is asked with GET may also be asked by everybody who reaches an address of the
// network, if the service has one for that (NewPublicServer).
//
// Only the service's user and root may connect: the socket's mode is 0600, and the
// peer's user is looked at. The socket is inherited over upgrades like every other,
// so that there is always somebody who answers; an upgrade that is being watched
// takes its watchers' connections along to the next parent.
//
// A field never changes its meaning; unknown ones are to be skipped.
package control

import (
	"time"

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
	// Upgrade is the last one that was tried, if there was one.
	Upgrade *Outcome `json:"upgrade,omitempty"`
}

// Outcome is how an upgrade ended.
type Outcome struct {
	Time       time.Time `json:"time"`
	Generation int       `json:"generation"` // that it was to lead to
	Result     Result    `json:"result"`
	Reason     string    `json:"reason,omitempty"`
}

// Result of an upgrade.
type Result string

const (
	// Done: all workers of the new generation serve, and no older one accepts.
	Done Result = "done"
	// Failed: nothing has changed.
	Failed Result = "failed"
	// Stopped: the new generation decides, but its workers could not replace all of
	// the older ones, which go on serving.
	Stopped Result = "stopped"
	// Rolling: the new generation decides and replaces the workers. It is no Event's
	// result, but may be an Outcome's.
	Rolling Result = "rolling"
	// Moved: the process that was asked has just been replaced. Ask again.
	Moved Result = "moved"
)

// Event is a step of an upgrade. The last one has a Result.
type Event struct {
	Time       time.Time `json:"time"`
	Generation int       `json:"generation,omitempty"` // the new one
	Text       string    `json:"text,omitempty"`       // for people
	Result     Result    `json:"result,omitempty"`
	Reason     string    `json:"reason,omitempty"` // of Failed and Stopped
	Output     string    `json:"output,omitempty"` // the end of what the new program printed
}
