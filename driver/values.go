package driver

import (
	"context"
	"fmt"
	"time"
)

// MaxValue is the most that a value holds, in bytes. Values are for what processes agree on
// (a leader's address, a plan, a cached record), not for storage.
const MaxValue = 64 << 10

// AnyVersion in [Write].If stores whatever is there.
const AnyVersion = -1

// Value is what is stored under a name at one moment. The zero Value, but for Now, is that
// of a name under which nothing is stored.
type Value struct {
	Data []byte
	// Version is the number of the write that stored it, 0 where nothing is stored.
	Version int64
	// Fence is the highest that a write of it carried, since the name was last without value.
	Fence int64
	// TTL is how long it is kept from now on, 0 where for ever.
	TTL time.Duration
	// Now is the reading of the engine's wall clock that TTL counts from. It is the same
	// clock for all users of the engine as far as they share a server.
	Now time.Time
}

// Write says what to store under a name.
type Write struct {
	Name string
	// Data has at most [MaxValue] bytes. With Delete it is not looked at.
	Data   []byte
	Delete bool
	// TTL is how long to keep it, 0 for ever.
	TTL time.Duration
	// If is the version that has to be stored for the write to happen: 0 for none,
	// [AnyVersion] for whatever is there.
	If int64
	// Fence, where not 0, is that of the lease under which the caller writes.
	Fence int64
}

// CheckWrite returns nil for a write that every engine takes.
func CheckWrite(w Write) error {
	switch {
	case len(w.Data) > MaxValue:
		return fmt.Errorf("value has %d bytes: shorten it to %d", len(w.Data), MaxValue)
	case w.TTL < 0 || w.TTL > MaxValueTTL:
		return fmt.Errorf("TTL of the value is %v: it must be 0 (for ever) to %v", w.TTL, MaxValueTTL)
	case w.TTL > 0 && w.TTL < time.Millisecond:
		return fmt.Errorf("TTL of the value is %v: values live for a millisecond or longer", w.TTL)
	case w.If < AnyVersion:
		return fmt.Errorf("version is %d: it must be 0 (nothing stored) or one that was read", w.If)
	case w.Fence < 0 || w.Fence > MaxFence:
		return fmt.Errorf("fence is %d: it must be 0 (none) or that of a lease", w.Fence)
	}
	return CheckName(w.Name)
}

// Bounds of what [CheckWrite] lets pass.
const (
	MaxValueTTL = 365 * 24 * time.Hour
	MaxFence    = 1<<53 - 1
)

// Values is the ability to keep small values with versions, for engines that store more than
// locks. The names of values and those of locks are apart.
//
// A value is as durable as the engine's locks are: see Capabilities.Safety.
//
// Implementations must:
//
//   - [value-read] answer Version 0 for a name under which nothing is stored;
//   - [value-write] store any bytes, none included, and read the same ones back;
//   - [value-version] give every write of a name a larger Version than any earlier one, deletion and expiry in between included;
//   - [value-if] refuse with [Stale], change nothing and answer what is stored, when If is not [AnyVersion] and not the Version stored;
//   - [value-race] let exactly one of many concurrent writes with the same If happen;
//   - [value-fence] refuse with Stale, change nothing and answer what is stored, when Fence is not 0 and lower than the stored one, and keep the higher one otherwise;
//   - [value-delete] leave nothing behind that can be read after a write with Delete;
//   - [value-ttl] drop a value once its TTL is over, not earlier, and count it anew from a write;
//   - [value-await] let AwaitValue return once Version is not the one that the caller knows, whether it changed before or during the call, by a write, a deletion or expiry;
//   - [value-cancel] let AwaitValue return soon after ctx ends, with ctx's error and [Unavailable], outcome not applied;
//   - [value-names] keep the values of any two names apart, and apart from the locks of those names;
//   - [value-close] answer [Closed] to every call after Close, and end the calls that wait.
type Values interface {
	// ReadValue returns what is stored under name.
	ReadValue(ctx context.Context, name string) (Value, error)
	// WriteValue stores or deletes, and returns what is stored then. What it returns along
	// with Stale is what is stored instead; along with other errors it is nothing.
	WriteValue(ctx context.Context, w Write) (Value, error)
	// AwaitValue waits until the Version of name is not the one given, and returns what is
	// stored by then. It may miss versions in between.
	AwaitValue(ctx context.Context, name string, version int64) (Value, error)
}
