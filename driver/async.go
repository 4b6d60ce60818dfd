package driver

// AsyncReleaser is the ability to give a share back without waiting for the answer, so that
// the release can travel with what the engine sends next.
//
// Implementations must:
//
//   - [async-release] give the share back as Release does, without being called again, and call
//     done once with what Release would have answered;
//   - [async-order] not let a later request for the name through the same engine overtake the release;
//   - [async-close] call done before Close returns.
type AsyncReleaser interface {
	// ReleaseAsync gives the share of claim.Token back and returns at once. done may be
	// called before it returns, and from any goroutine; it neither waits nor calls the
	// engine.
	ReleaseAsync(claim Claim, done func(error))
}
