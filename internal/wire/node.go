package wire

import "encoding/json"

// What Node's child_process and cluster say on a channel. PROTOCOL.md has who says it,
// and when.
const (
	CmdNodeHandle     = "NODE_HANDLE"      // both ways, with one descriptor: a NodeHandle
	CmdNodeHandleAck  = "NODE_HANDLE_ACK"  // it has arrived, the next may follow
	CmdNodeHandleNack = "NODE_HANDLE_NACK" // it has not: send it again
	// Node asks about the connections of a server that it has sent away, by the server's
	// key: have they ended, how many are there. Each has its answer. A NodeSockets.
	CmdNodeNotifyClose = "NODE_SOCKET_NOTIFY_CLOSE"
	CmdNodeAllClosed   = "NODE_SOCKET_ALL_CLOSED"
	CmdNodeGetCount    = "NODE_SOCKET_GET_COUNT"
	CmdNodeCount       = "NODE_SOCKET_COUNT"
	CmdNodeCluster     = "NODE_CLUSTER" // both ways: a ClusterQuery or a ClusterReply
)

// What a NodeHandle's descriptor becomes. The native ones are for cluster: no object is
// made of them.
const (
	NodeServer       = "net.Server"
	NodeSocket       = "net.Socket"
	NodeDatagrams    = "dgram.Socket"
	NodeNative       = "net.Native"
	NodeNativePacket = "dgram.Native"
)

// NodeHandle is a message with a descriptor: what process.send(msg, handle) makes.
type NodeHandle struct {
	Cmd  string          `json:"cmd"`
	Type string          `json:"type"`
	Msg  json.RawMessage `json:"msg"` // the message itself
	// DgramType is "udp4" or "udp6", of NodeDatagrams.
	DgramType string `json:"dgramType,omitempty"`
}

// NodeSockets is about connections that were sent away.
type NodeSockets struct {
	Cmd   string          `json:"cmd"`
	Key   json.RawMessage `json:"key,omitempty"`
	Count int             `json:"count"` // of CmdNodeCount
}

// ClusterQuery is what a worker of cluster says. Which fields count depends on Act.
type ClusterQuery struct {
	Act string          `json:"act"`
	Seq json.RawMessage `json:"seq"` // names it in the answer
	// Of "queryServer": what it wants to listen on.
	Address     *string         `json:"address"` // nil: every one
	Port        int             `json:"port"`    // 0: any; negative: Address is a path
	AddressType json.RawMessage `json:"addressType"`
	Fd          *int            `json:"fd"`    // a descriptor of its own, which goes before the address
	Index       int             `json:"index"` // how often it has asked for the same
	Data        json.RawMessage `json:"data"`  // what all workers are to have in common, such as keys of TLS tickets
}

// ClusterReply is what a worker of cluster is told.
type ClusterReply struct {
	Cmd   string          `json:"cmd"`
	Act   string          `json:"act,omitempty"`
	Ack   json.RawMessage `json:"ack,omitempty"` // the question's Seq
	Key   string          `json:"key,omitempty"` // names the handle among the worker's
	Errno int             `json:"errno,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
}
