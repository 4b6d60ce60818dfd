package protocol

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// NodeState is how a node of a quorum is, by its letter in lua/quorum_node.lua.
type NodeState byte

// The states. The zero NodeState is that of a node that did not answer.
const (
	Unreachable NodeState = 0
	Serving     NodeState = 's'
	Grace       NodeState = 'g' // seeded; it grants and vouches nothing yet
	Forgetful   NodeState = 'f' // restarted, promoted, or without a part of its data
	Blank       NodeState = 'v' // never used, or without any data
)

// Seeded reports whether the node remembers what it did since it was last seeded.
func (s NodeState) Seeded() bool { return s == Serving || s == Grace }

// NodeHead is the first word of a reply to requests: how the node is.
type NodeHead struct {
	State NodeState
	Epoch string // with a '-' in front where the node is not seeded
}

var errReply = errors.New("a node's reply cannot be read")

// ParseHead takes the first string of a reply apart: how the node is, and the words.
func ParseHead(first string) (NodeHead, string, error) {
	head, words, ok := strings.Cut(first, " ")
	if !ok || len(head) < 2 {
		return NodeHead{}, "", errReply
	}
	return NodeHead{State: NodeState(head[0]), Epoch: head[1:]}, words, nil
}

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	NodeHead
	Top       int64         // no larger number was ever given out there
	Left      time.Duration // of its grace
	Micros    int64         // its clock
	Constants string        // '' on a blank node
	Term      string        // no two nodes have the same
}

// ParseStatus reads a reply of lua/quorum_heal.lua, and whether what was asked for was done.
func ParseStatus(reply []string) (s NodeStatus, done bool, err error) {
	if len(reply) != 8 || len(reply[1]) != 1 {
		return s, false, errReply
	}
	s.State, s.Epoch, s.Constants, s.Term = NodeState(reply[1][0]), reply[2], reply[6], reply[7]
	var e1, e2, e3 error
	var left int64
	s.Top, e1 = strconv.ParseInt(reply[3], 10, 64)
	left, e2 = strconv.ParseInt(reply[4], 10, 64)
	s.Micros, e3 = strconv.ParseInt(reply[5], 10, 64)
	s.Left = time.Duration(left) * time.Millisecond
	return s, reply[0] == "done", errors.Join(e1, e2, e3)
}

// Epoch is the one that a majority of the nodes are in, ” for none. Rounds are made in it.
func (q Quorum) Epoch(nodes []NodeHead) string {
	for _, a := range nodes {
		n := 0
		for _, b := range nodes {
			if b.State.Seeded() && b.Epoch == a.Epoch {
				n++
			}
		}
		if n >= q.Majority() {
			return a.Epoch
		}
	}
	return ""
}

// Care is what nodes need.
type Care uint8

// The cares.
const (
	AllWell  Care = iota // nothing: who did not answer is to be looked after by somebody else
	Heal                 // a client heals them by itself
	Found                // nothing was ever locked, or all is lost: see Foundation
	Waiting              // some that did not answer may remember enough
	Operator             // too much was forgotten: an operator has to say so
)

// Needs is what the nodes need, from the status of each that answered. Heal is safe whatever
// happens meanwhile, in this order: every seeded node is raised from the epoch that it was in
// to one new epoch; once a Blocking of them were, the others are seeded with the largest top
// that was answered to a raise, into the same epoch. See docs/guarantees.md for why.
func (q Quorum) Needs(nodes []NodeStatus) Care {
	seeded, unseeded, blank, apart, epoch := 0, 0, 0, false, ""
	for _, n := range nodes {
		switch {
		case n.State.Seeded():
			seeded++
			apart = apart || epoch != "" && epoch != n.Epoch
			epoch = n.Epoch
		case n.State != Unreachable:
			unseeded++
			if n.State == Blank {
				blank++
			}
		}
	}
	switch {
	case unseeded == 0 && !apart:
		return AllWell
	case seeded >= q.Blocking() && seeded+unseeded >= q.Majority():
		return Heal
	case blank == int(q):
		return Found
	case int(q)-unseeded >= q.Blocking() || blank > 0 && blank == unseeded && seeded == 0:
		return Waiting
	}
	return Operator
}

// Floor is what nodes are seeded with, from the answers of those that were raised, and
// whether they are enough for that.
func (q Quorum) Floor(raised []NodeStatus) (floor int64, enough bool) {
	for _, n := range raised {
		floor = max(floor, n.Top)
	}
	return floor, len(raised) >= q.Blocking()
}

// ahead is by how much numbers may be ahead of a node's clock: lua/quorum.lua bounds what
// clients propose.
const ahead = time.Hour

// Foundation is what nodes are seeded with where too few remember: for the first use, and on
// an operator's word. It is above every number that any clock of these nodes, at any time
// before, allowed: the order of fences rests on those clocks.
func Foundation(nodes []NodeStatus) (floor int64) {
	for _, n := range nodes {
		if n.State != Unreachable {
			floor = max(floor, n.Top, n.Micros+ahead.Microseconds())
		}
	}
	return floor
}
