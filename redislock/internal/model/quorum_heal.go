package model

import (
	"time"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// QuorumHeal is a call of lua/quorum_heal.lua.
type QuorumHeal struct {
	Constants      protocol.QuorumConstants
	Op, Word, Seen string
	Floor          int64
	None, Regroup  bool
}

// Heal is lua/quorum_heal.lua. ok is false where the node is a replica.
func (n *QuorumNode) Heal(h *QuorumHeal) (s protocol.NodeStatus, done, ok bool) {
	if n.look(); n.Replica {
		return s, false, false
	}
	r := &n.Record
	if !r.Set {
		r.Constants = h.Constants
	}
	agreed := n.state == protocol.Blank || r.Constants == h.Constants || h.Regroup
	switch {
	case h.Op == "status" && n.epoch == "-":
		n.epoch += string(rune(n.state)) + h.Word + "." + itoa(n.Micros/1_000_000) + "." + itoa(n.Micros%1_000_000)
		*r = QuorumRecord{Set: true, Term: n.Term, Epoch: n.epoch, Constants: r.Constants}
	case h.Op != "status" && agreed && n.saw(h) && (h.Op == "seed" || n.state.Seeded()):
		n.enter(h)
		done = true
	}
	s = protocol.NodeStatus{
		NodeHead: protocol.NodeHead{State: n.state, Epoch: n.epoch},
		Top:      n.Top, Left: time.Duration(n.left) * time.Millisecond, Micros: n.Micros, Term: n.Term,
	}
	if n.state != protocol.Blank {
		s.Constants = r.Constants.String()
	}
	return s, done, true
}

// saw reports whether the node is still as the healer saw it.
func (n *QuorumNode) saw(h *QuorumHeal) bool {
	if n.Flaws.Has(RaiseWithoutComparing) && h.Op == "raise" || n.Flaws.Has(SeedWithoutComparing) && h.Op == "seed" && !n.state.Seeded() {
		return true
	}
	return n.epoch != "-" && n.epoch == h.Seen
}

// enter takes the node into a new epoch.
func (n *QuorumNode) enter(h *QuorumHeal) {
	r := &n.Record
	if !n.state.Seeded() {
		*r = QuorumRecord{}
	}
	r.Set, r.Term, r.Constants, r.Epoch, n.epoch = true, n.Term, h.Constants, h.Word, h.Word
	if h.Op == "raise" {
		return
	}
	r.Floor = max(r.Floor, h.Floor)
	n.Top, n.HasTop = max(n.Top, r.Floor), true
	n.state, r.Start, n.left = protocol.Grace, n.ms, h.Constants.Grace().Milliseconds()
	if h.None || n.Flaws.Has(NoGraceForSeeded) {
		n.state, r.Start, n.left = protocol.Serving, 0, 0
	}
	r.Mark, r.Since = n.Top, n.ms
}
