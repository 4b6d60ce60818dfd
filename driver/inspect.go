package driver

import (
	"context"
	"time"
)

// Holder describes who holds a share, as far as the engine knows; unknown fields are zero.
// Times are wall-clock times of the server, or of the holder where the engine has no server;
// Since is the holder's as well where it took no more than that to grant, on a quorum.
type Holder struct {
	Owner string    `json:"owner,omitempty"` // label of the process; text of others, not to be trusted
	Mode  Mode      `json:"-"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"` // zero where shares do not expire
	Fence int64     `json:"fence,omitempty"`
	// Weight is the number of permits of a Permits share.
	Weight int `json:"weight,omitempty"`
}

// Info describes one name at one moment.
type Info struct {
	Name    string   `json:"name"`
	Holders []Holder `json:"holders"`
	// Limit is the limit of a semaphore, 0 otherwise.
	Limit int `json:"limit,omitempty"`
	// Waiters counts the requests that wait on the engine, -1 where it cannot know. A
	// process waits with one request, however many of its goroutines do.
	Waiters int `json:"waiters"`
	// Fence is the highest number that was granted to those who hold the name, 0 for a free one.
	Fence int64 `json:"fence,omitempty"`
}

// Inspector is the ability to look at names and to break them.
//
// Implementations must:
//
//   - [inspect] describe every holder of a name, and answer an empty Info for a free one;
//   - [list] list each name that is held, and no name that is free;
//   - [break] take all shares of a name from their holders, so that others may be granted;
//   - [break-fence] refuse with [Stale], and change nothing, when Fence is not 0 and nobody holds that fence;
//   - [break-told] answer [Lost] to the next renewal of a holder whose share was broken;
//   - [break-order] never let a fence after a break be smaller than one before it.
type Inspector interface {
	// Inspect describes one name.
	Inspect(ctx context.Context, name string) (Info, error)

	// List describes the names that start with prefix and are held, ordered by name, at
	// most limit of them.
	List(ctx context.Context, prefix string, limit int) ([]Info, error)

	// Break takes a name from its holders and returns what it found. It answers NotHeld
	// when nobody holds the name.
	Break(ctx context.Context, req BreakRequest) (Info, error)
}

// BreakRequest asks to take a name from its holders.
type BreakRequest struct {
	Name string
	// Fence, where not 0, is the fence that a holder must have for the break to happen.
	Fence int64
	// By and Reason go into the engine's record of the break, where it keeps one.
	By, Reason string
}
