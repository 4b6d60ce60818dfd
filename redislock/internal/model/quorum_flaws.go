package model

import "github.com/holdfast-go/holdfast/redislock/internal/protocol"

// QuorumFlaws are bugs that are planted in the quorum, for the search to find.
type QuorumFlaws uint32

// Bugs of the nodes, of the clients, and of the heal.
const (
	// VouchUnconditionally: c := max(c, fence), whoever holds the key.
	VouchUnconditionally QuorumFlaws = 1 << iota
	// VouchByToken: if the key holds the token, c := max(c, fence).
	VouchByToken
	// RenewByToken renews what the key says, whatever was granted since.
	RenewByToken
	// RenewTakesBack enters a key anew that has run out.
	RenewTakesBack
	// MoveWhateverWasSince moves a vouch though the token was granted more numbers since.
	MoveWhateverWasSince
	// SpanCountsOnce raises the counter by one number for a span, whatever the clock says.
	SpanCountsOnce
	// CountersRunOut: a counter is gone and nothing stands in for it.
	CountersRunOut

	// NoSecondRound takes the largest of the answers for the fence.
	NoSecondRound
	// OneToken: two attempts have one token.
	OneToken
	// Minority: one node less than a majority is enough.
	Minority
	// LeaseFromAnswer counts the TTL from the last answer, not from the request.
	LeaseFromAnswer

	// NoEpoch: a node that forgot goes on as if nothing had been.
	NoEpoch
	// ReseedWithoutEpoch: such a node is told the largest number of the others, and goes on.
	ReseedWithoutEpoch
	// SeedAfterTooFew: one node less than is in every majority was raised.
	SeedAfterTooFew
	// NoGraceForSeeded: a node that was seeded grants at once.
	NoGraceForSeeded
	// RaiseWithoutComparing raises a node from whatever epoch it is in.
	RaiseWithoutComparing
	// SeedWithoutComparing seeds a node that has forgotten again since it was seen.
	SeedWithoutComparing
	// EpochsMix counts the answers of nodes in any epoch.
	EpochsMix
)

// Has reports whether the bug is planted.
func (f QuorumFlaws) Has(bug QuorumFlaws) bool { return f&bug != 0 }

// flawedVouch is what a node with a bug does.
func (n *QuorumNode) flawedVouch(l *QuorumLock, q *QuorumRequest) (w QuorumWord, planted bool) {
	mine := l.signed(tokenOf(q.ID))
	done := word(protocol.Done, 0)
	switch {
	case n.Flaws.Has(VouchUnconditionally):
		n.raise(q.A)
		l.Count, l.CountEnds = max(l.Count, q.A), n.ms+keep+q.TTL
	case n.Flaws.Has(VouchByToken) && mine:
		if l.last() < q.A {
			n.set(l, q.A, q.A, q.TTL)
		}
	case n.Flaws.Has(RenewByToken) && mine:
		l.Ends = n.ms + q.TTL
	case n.Flaws.Has(RenewTakesBack) && l.Kind == Free:
		l.Kind, l.Value, l.Ends = Exclusive, Value{ID: q.ID, First: q.A}, n.ms+q.TTL
	default:
		return w, false
	}
	return done, true
}
