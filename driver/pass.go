package driver

import "context"

// Passer is the ability to give a share back and to ask for the name anew in the same call, on
// behalf of somebody else in the process who wants it next. That saves a round trip where a
// lock goes round in one process.
//
// Implementations must:
//
//   - [pass] give the share of the claim back as Release does and then try for the request as Acquire does;
//   - [pass-line] serve those who wait for the name before the request, which is then refused with
//     [Held] and leaves nothing behind;
//   - [pass-owner] give nothing back for a token that holds nothing, answer [NotHeld] for it, and try
//     for the request all the same;
//   - [pass-close] answer [Closed] for both after Close.
type Passer interface {
	// Pass gives the share of claim.Token back, and tries once for what req describes. Both
	// are about the same name, and req does not wait. released is what Release would have
	// answered, err what Acquire would have: where no answer comes, both outcomes are
	// [Unknown].
	Pass(ctx context.Context, claim Claim, req Request) (released error, g Grant, err error)
}
