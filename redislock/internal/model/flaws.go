package model

// Flaws are bugs that are planted to see whether a search finds them. Each is a rule that was
// considered, or that a careless change could bring back.
type Flaws uint32

// Bugs of the server side.
const (
	// MissingIsOpen takes a master without an epoch for one that needs no grace.
	MissingIsOpen Flaws = 1 << iota
	// OldAcksCount counts acknowledgements from before the promotion.
	OldAcksCount
	// GraceOfMaxTTL ends the grace after MaxTTL, though the predecessor went on granting.
	GraceOfMaxTTL
	// NoQuietPhase confirms renewals of a new master at once.
	NoQuietPhase
	// RenewalSkipsGate prolongs what the key says, whatever the gate says.
	RenewalSkipsGate
	// OwnGraceKey reads the start of the grace though another term wrote it.
	OwnGraceKey
	// ReassertOverwrites lets a holder take its name back from another.
	ReassertOverwrites
	// HandOverInGrace lets a release serve the queue in any phase.
	HandOverInGrace
	// TermWhenCutOff lets a master that is cut off say for how long it has been one.
	TermWhenCutOff
	// OldTTL grants a share that the token holds already without counting its TTL anew.
	OldTTL
	// PublishFirst tells a waiter of a grant before the grant is entered.
	PublishFirst
	// TakeBack tells a waiter who does not listen here of a grant, and takes that back.
	TakeBack

	// RunIDAsTerm: the epoch names the process and not its mastership.
	RunIDAsTerm
	// FewReplicas asks for one replica whatever their number.
	FewReplicas
	// NoReplicas does not look at replicas at all.
	NoReplicas
	// ShortSilence forgets the resolution of the lag and the acknowledgements under way.
	ShortSilence
)

// Bugs of the client.
const (
	// DeadlineFromReceipt counts the TTL of a push from its arrival.
	DeadlineFromReceipt Flaws = 1 << (16 + iota)
	// AnyPush believes every push.
	AnyPush
	// OpenToStrangers takes a missing epoch for no grace where the client is new.
	OpenToStrangers
	// Reattach is no bug of ours: an operator lets a replica follow a superseded master.
	Reattach
	// MovedWithoutKeys neither: a slot is given to another master without its keys.
	MovedWithoutKeys
	// MovedEarly: a slot is moved away from a master within a grace of its promotion.
	MovedEarly
	// TokenAgain uses a token for the next lock.
	TokenAgain
	// LateRevives lets an answer that comes after the deadline count.
	LateRevives
)

// Has reports whether the bug is planted.
func (f Flaws) Has(bug Flaws) bool { return f&bug != 0 }
