package redislock

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// Diagnose implements driver.Diagnoser. It looks at each node, and at what the nodes come to.
// Nothing is written but that a node which has to be healed is given a random word.
func (q *Quorum) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	if err := q.enter(ctx); err != nil {
		return driver.Diagnosis{}, err
	}
	defer q.leave()
	all := q.statuses(ctx)
	exams := make([]*exam, len(q.nodes))
	results, _ := q.askAll(ctx, func(n *node) error {
		x := &exam{e: n.Engine, ttl: ttl, prefix: n.addr + " "}
		exams[n.index] = x
		return x.voter(ctx, n)
	})
	d := &exam{e: q.nodes[0].Engine, ttl: ttl}
	d.fact("topology", "quorum of %d independent servers", len(q.nodes))
	for i, r := range results {
		if r.Status == NodeGranted {
			d.Facts = append(d.Facts, exams[i].Facts...)
			d.Findings = append(d.Findings, exams[i].Findings...)
		}
		d.prefix = r.Addr + " "
		q.state(d, all[i])
	}
	d.prefix = ""
	q.verdict(d, all)
	return d.Diagnosis, nil
}

// voter looks at what a node is. The error is that of a connection.
func (x *exam) voter(ctx context.Context, n *node) error {
	s, err := survey(ctx, n.only.node, "")
	if err != nil {
		return err
	}
	settings := config(ctx, n.only.node)
	x.identity(s)
	x.eviction(s, settings)
	x.latency(ctx, n.only.node)
	x.clock(ctx, n.only.node)
	if k := s.replicas(); k > 0 {
		x.find(driver.LevelWarning, "replicas", "take the failover away: restart or replace the node itself when it is down",
			"%d follow: one that takes over counts as a node that has forgotten, and until it is noticed as the node itself", k)
	}
	return nil
}

// state reports whether a node takes part.
func (q *Quorum) state(x *exam, s status) {
	switch {
	case s.err != nil:
		x.find(driver.LevelWarning, "node", "see whether it runs, and whether this machine reaches it", "it does not take part: %v", s.err)
		return
	case s.Constants != "" && s.Constants != q.constants:
		x.find(driver.LevelProblem, "node", "", "%v", &quorumConstantsError{ours: q.constants, theirs: s.Constants})
		return
	}
	switch s.State {
	case protocol.Serving:
		x.find(driver.LevelOK, "node", "", "it takes part")
	case protocol.Grace:
		x.find(driver.LevelNote, "node", "", "%v", stateError(s.State, s.Left))
	default:
		x.find(driver.LevelWarning, "node", "", "%v", stateError(s.State, s.Left))
	}
}

// verdict ends the diagnosis with what the nodes come to.
func (q *Quorum) verdict(x *exam, all []status) {
	nodes := reporting(all)
	heads, terms := make([]protocol.NodeHead, len(nodes)), make(map[string]string)
	for i, n := range nodes {
		heads[i] = n.NodeHead
		if n.State == protocol.Unreachable {
			continue
		}
		if other, dup := terms[n.Term]; dup {
			x.find(driver.LevelProblem, "nodes", "give each server once", "%s and %s are one server: it votes twice", other, q.nodes[i].addr)
		}
		terms[n.Term] = q.nodes[i].addr
	}
	serving, epoch := 0, q.size.Epoch(heads)
	for _, n := range nodes {
		if n.State == protocol.Serving && n.Epoch == epoch && epoch != "" {
			serving++
		}
	}
	need := q.size.Majority()
	x.fact("nodes", "%d of %d take part, %d are needed", serving, len(nodes), need)
	switch care := q.size.Needs(nodes); {
	case care == protocol.Found:
		x.find(driver.LevelNote, "quorum", "if no lock was ever taken here, say so: holdfast doctor --init, or Init in a program",
			"the nodes are new, or all have lost their data: the first lock waits %v", about(q.grace()))
	case care == protocol.Operator:
		x.find(driver.LevelProblem, "quorum", "holdfast doctor --heal, or Heal in a program",
			"too few nodes remember what they promised: no locks until an operator says that the others are to take part again")
	case care == protocol.Waiting:
		x.find(driver.LevelProblem, "quorum", "bring the nodes up that do not answer; if they are gone for good: holdfast doctor --heal",
			"nodes have forgotten what they promised, and those that may remember enough do not answer: no locks until then")
	case care == protocol.Heal:
		x.find(driver.LevelNote, "quorum", "", "nodes have forgotten what they promised: the clients that use them see to that, and they take part again after %v", about(q.grace()))
	case serving < need:
		x.find(driver.LevelProblem, "quorum", "bring the others up", "%d of %d nodes take part, and %d are needed: nothing is granted, and leases end", serving, len(nodes), need)
	case serving == need:
		x.find(driver.LevelWarning, "quorum", "bring the others up", "%d of %d nodes take part: if one more fails, nothing is granted", serving, len(nodes))
	default:
		x.find(driver.LevelOK, "quorum", "", "%d of %d nodes take part: %d of them may fail", serving, len(nodes), serving-need)
	}
	if x.Worst() == driver.LevelProblem {
		x.find(driver.LevelProblem, "safety", "deal with the problems above", "no locks as long as there are problems")
		return
	}
	x.find(driver.LevelOK, "safety", "", "%s", q.caps.Safety)
}

// grace is for how long a node sits out that was seeded.
func (q *Quorum) grace() time.Duration {
	return protocol.QuorumConstants{MaxTTL: q.cfg.MaxTTL}.Grace()
}
