// Package driver is the boundary between holdfast and the engines it runs on.
//
// Users of locks never need it: they open an engine package and hand the result to
// holdfast.New. It is for those who write an engine. An engine answers three calls, Acquire,
// Renew and Release, and says in [Capabilities] what it can do beyond them. Everything that
// is the same on every engine (the queue of local waiters, renewal, the announcement of a
// loss, clean-up after replies that never came) is done once, by the core.
//
// The contract is written as a list of sentences, each with a name in square brackets.
// Package drivertest has one case of that name for every sentence, and a broken engine that
// the case must catch. An engine that passes drivertest.Run keeps the contract as far as
// tests can tell.
package driver

import "context"

// Engine grants, renews and releases shares of named resources.
//
// All methods are safe for concurrent use. Names, durations and weights were validated by
// the core before an engine sees them. An engine answers failures with *[Error], which
// classifies the raw error without hiding it; any other error counts as [Unavailable] with
// an [Unknown] outcome.
//
// # Exclusion
//
// Implementations must:
//
//   - [exclusive] grant an [Exclusive] share only while nobody else holds any share of that name;
//   - [shared] let [Shared] shares of one name coexist;
//   - [upgradeable] let at most one [Upgradeable] share of a name coexist with Shared ones;
//   - [permits] grant [Permits] only while the weights held add up to Limit or less;
//   - [limit-mismatch] refuse a limit that differs from the one in use with [Invalid];
//   - [kinds] never let Permits coexist with a share of another mode;
//   - [names] keep any two different names apart;
//   - [race] grant to exactly one of many concurrent exclusive requests.
//
// # Acquire
//
// Implementations must:
//
//   - [try] answer [Held] at once, and leave nothing behind, when Wait is false and the share is taken;
//   - [holder] name the holder in that answer where Capabilities.Holders says so;
//   - [wait] grant to a waiting request after the holder's release, without another call;
//   - [wait-death] grant to a waiting request after the holder's share ran out;
//   - [cancel] return soon after ctx ends, with ctx's error and [Held] if it waited for a holder,
//     and withdraw the request;
//   - [cancel-race] when the grant and the end of ctx coincide, either return the grant or hold nothing;
//   - [done-context] change nothing when ctx is done before the call;
//   - [idempotent] answer a repeated request whose token already holds the share with a grant;
//   - [sent] set Grant.Sent from Capabilities.Clock after Acquire was called and before the
//     request that proved ownership left;
//   - [waited-proof] after a wait, prove ownership anew: a grant is never older than its Sent;
//   - [upgrade] with Request.Upgrade, turn the token's Upgradeable share into an Exclusive one
//     once all Shared ones are gone;
//   - [upgrade-keep] keep the Upgradeable share when an upgrade fails or is cancelled;
//   - [fifo] serve waiting requests of a name in their order where Capabilities.FIFO says so;
//   - [no-overtake] not let new Shared requests overtake a waiting Exclusive one where
//     Capabilities.FIFO says so.
//
// # Fences
//
// Implementations must:
//
//   - [fence-grows] answer a larger Fence than every number that any grant of that name was given before the call;
//   - [fence-after-release] keep that order across a release of the name by its last holder;
//   - [fence-span] give each grant 1 to Request.Span numbers that no other grant of the name gets;
//   - [fence-range] keep every number between 1 and 2^53-1.
//
// # Lifetime
//
// Implementations must, where Capabilities.Expires says so:
//
//   - [ttl] free a share that was not renewed for its TTL;
//   - [ttl-kept] not free it earlier than TTL, or a shorter Grant.TTL, after Grant.Sent, nor after a renewal for less than the TTL renewed;
//
// and on every engine:
//
//   - [renew] answer nil for a claim whose token holds its share, and count its TTL from then on;
//   - [renew-order] answer one error a claim, in the order of the claims, one failure not touching the others;
//   - [renew-lost] answer [Lost] for a claim whose share is gone, and never take it back, though it be free;
//   - [renew-foreign] never prolong the share of another token.
//
// # Release
//
// Implementations must:
//
//   - [release] free the share for everybody before returning nil;
//   - [release-owner] answer [NotHeld], and free nothing, when the token holds nothing;
//   - [release-repeat] answer a repeated release the same way, whoever holds the name by then;
//   - [release-one] leave the other shares of the name alone;
//   - [release-withdraws] withdraw a request of that token that still waits.
//
// # Close
//
// Implementations must:
//
//   - [close] answer [Closed] to every call after Close, and end the calls that wait;
//   - [close-leak] leave no goroutine behind after Close.
type Engine interface {
	// Acquire asks for the share that req describes. With req.Wait it waits until the
	// share is granted or ctx ends; otherwise it tries once.
	Acquire(ctx context.Context, req Request) (Grant, error)

	// Renew counts the TTL of every claim anew, in as few round trips as the engine can.
	// It returns one error a claim, in order.
	Renew(ctx context.Context, claims []Claim) []error

	// Release gives the share of claim.Token back, or withdraws its waiting request.
	Release(ctx context.Context, claim Claim) error

	// Capabilities says what the engine can do. The answer never changes.
	Capabilities() Capabilities

	// Close ends all calls under way and frees what the engine itself opened. Shares
	// still held are left to their TTL, or freed where the engine holds them by a
	// session of its own.
	Close() error
}
