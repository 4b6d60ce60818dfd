package redislock

import (
	"fmt"
	"strings"
)

// QuorumStatus is what an attempt on the nodes of a quorum came to.
type QuorumStatus uint8

// The statuses.
const (
	QuorumAcquired   QuorumStatus = iota + 1 // a majority granted
	QuorumMissing                            // too few nodes answered: no quorum
	QuorumConflicted                         // a majority answered, and others hold what was missing
	QuorumExpired                            // a majority granted, and took too long for anything to be left of the TTL
)

var quorumStatuses = [...]string{"unknown", "acquired", "no quorum", "conflicted", "expired"}

// String returns the status in words.
func (s QuorumStatus) String() string {
	if int(s) < len(quorumStatuses) {
		return quorumStatuses[s]
	}
	return fmt.Sprintf("QuorumStatus(%d)", s)
}

// NodeStatus is what one node of a quorum answered.
type NodeStatus uint8

// The statuses of nodes.
const (
	NodeSilent  NodeStatus = iota // it has not answered by then, or was not asked because the others were enough
	NodeGranted                   // it granted or confirmed the lock
	NodeHeld                      // somebody else holds the lock there
	NodeLost                      // the lock is not held there any more
	NodeSitsOut                   // it has restarted or lost its data, and grants nothing yet
	NodeFailed                    // it could not be reached, or failed
)

var nodeStatuses = [...]string{"silent", "granted", "held", "lost", "sits out", "failed"}

// String returns the status in words.
func (s NodeStatus) String() string {
	if int(s) < len(nodeStatuses) {
		return nodeStatuses[s]
	}
	return fmt.Sprintf("NodeStatus(%d)", s)
}

// NodeResult is what one node answered to the last attempt.
type NodeResult struct {
	Addr   string     // host and port
	Status NodeStatus // what it answered
	Err    error      // why, with NodeSitsOut and NodeFailed; it may quote the server
}

// QuorumError is why a majority could not be had, node by node. It is within the errors of a
// [Quorum]: use errors.As. It does not unwrap to the errors of the nodes, for a node that timed
// out must not look like the end of the caller's context.
type QuorumError struct {
	Status QuorumStatus
	Nodes  []NodeResult // in the order in which the nodes were given

	need int // how many would have been enough
}

// Error says what came of the attempt, and what is wrong with each node that did not grant.
func (e *QuorumError) Error() string {
	granted := 0
	var others []string
	for _, n := range e.Nodes {
		switch {
		case n.Status == NodeGranted:
			granted++
		case n.Err != nil:
			others = append(others, fmt.Sprintf("%s %v: %v", n.Addr, n.Status, n.Err))
		default:
			others = append(others, fmt.Sprintf("%s %v", n.Addr, n.Status))
		}
	}
	text := fmt.Sprintf("%v: %d of %d nodes granted, %d are needed", e.Status, granted, len(e.Nodes), e.need)
	if len(others) > 0 {
		text += " (" + strings.Join(others, "; ") + ")"
	}
	return text
}
