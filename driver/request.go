package driver

import "time"

// Mode is the kind of share that a request asks for.
type Mode uint8

// The modes. Exclusive goes with nothing else, Shared with Shared and one Upgradeable,
// Permits only with Permits of the same limit.
const (
	Exclusive Mode = iota + 1
	Shared
	Upgradeable
	Permits
)

// String returns the mode in lower case.
func (m Mode) String() string {
	switch m {
	case Exclusive:
		return "exclusive"
	case Shared:
		return "shared"
	case Upgradeable:
		return "upgradeable"
	case Permits:
		return "permits"
	}
	return "unknown"
}

// Token identifies one call for a share: 128 random bits, drawn anew for every acquire. Who
// knows the token can release the share, so engines never print it.
type Token [16]byte

// Request asks for a share of one name.
type Request struct {
	// Name is the resource: 1 to [MaxName] bytes of UTF-8 without control characters.
	Name string

	// Mode is the kind of share; Weight of Limit permits for [Permits].
	Mode          Mode
	Weight, Limit int

	// Token identifies the request. A repeat with the same token is the same request.
	Token Token

	// Owner is the readable label of the process, shown to others; it is not trusted.
	Owner string

	// TTL is how long the share lives without renewal, positive and at most
	// Capabilities.MaxTTL.
	TTL time.Duration

	// Span is how many consecutive fence numbers the caller could use, 1 or more. An
	// engine may grant fewer.
	Span int

	// Wait asks to wait for the share. Without it the request tries once.
	Wait bool

	// Upgrade asks to turn the Upgradeable share that Token holds into an Exclusive one.
	// Mode is then Exclusive.
	Upgrade bool
}

// Claim is the request's handle on what it was granted. Name and Token alone identify the
// share: after an upgrade whose outcome is not known, Mode may be what it was before.
type Claim struct {
	Name          string
	Mode          Mode
	Weight, Limit int
	Token         Token
	Owner         string

	// TTL is what a renewal asks for.
	TTL time.Duration

	// Fence is the highest number that the grant reserved.
	Fence int64
}

// Claim returns the handle on req once it was granted with g.
func (req Request) Claim(g Grant) Claim {
	return Claim{
		Name: req.Name, Mode: req.Mode, Weight: req.Weight, Limit: req.Limit,
		Token: req.Token, Owner: req.Owner, TTL: req.TTL,
		Fence: max(0, g.Fence+int64(g.FenceSpan)-1), // 0 when the grant is not known
	}
}

// Grant is the answer to a successful Acquire.
type Grant struct {
	// Fence is the first of FenceSpan consecutive numbers, all larger than any number that
	// was granted for the name before, and given to nobody else.
	Fence     int64
	FenceSpan int

	// Sent is the reading of Capabilities.Clock before the request that proved ownership
	// left: the TTL ends on the server no earlier than Sent + TTL.
	Sent Instant

	// TTL is how long the share lives from Sent where that is less than was asked for, 0
	// otherwise. An engine that grants to a waiter which may be gone by then grants for a
	// short time first; the next renewal counts the TTL that was asked for.
	TTL time.Duration

	// Waited says that the request had to wait for others, as far as the engine knows.
	Waited bool
}

// Lives returns how long the share lives from Sent when ttl was asked for.
func (g Grant) Lives(ttl time.Duration) time.Duration {
	if g.TTL > 0 {
		return min(g.TTL, ttl)
	}
	return ttl
}
