package driver

import (
	"context"
	"fmt"
	"time"
)

// Rule is how a [Count] counts.
type Rule uint8

// The rules.
const (
	// Total adds N to a total that lives for ever. Where the engine does not know the total,
	// because nobody counted yet or because it may have forgotten what was counted, it adds
	// nothing and answers Unproven.
	Total Rule = iota + 1
	// Raise makes a total N where it is less or missing. The total is proven from then on.
	Raise
	// Window adds N, of either sign, to a total that ends Window after its first count.
	Window
	// FixedWindow adds N to such a total unless it would exceed Limit.
	FixedWindow
	// SlidingWindow adds N unless the count of this Window and the part of the one before
	// that a window ending now still covers, taken as evenly spread, would exceed Limit.
	SlidingWindow
	// Pace admits N when the one who keeps to an even pace of Limit in a Window, Burst
	// ahead of it at most, could (the generic cell rate algorithm).
	Pace
	// Forget drops what was counted under any rule.
	Forget
)

var ruleNames = [...]string{"", "total", "raise", "window", "fixed window", "sliding window", "pace", "forget"}

// String returns the rule in words.
func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return fmt.Sprintf("Rule(%d)", r)
}

// Bounds of a [Count]. Within them all arithmetic is exact in 64-bit floating point as well,
// which is what scripts of some servers compute in.
const (
	MaxTotal  = 1<<53 - 1
	MaxLimit  = 100_000_000
	MinWindow = time.Millisecond
	MaxWindow = 24 * time.Hour
)

// Count is a step of counting under a name, carried out once or many times.
type Count struct {
	Name string
	Rule Rule
	// N is how much to count; under [Raise] it is the total. Otherwise 0 looks, and changes
	// nothing.
	N int64
	// Limit and Window, in whole milliseconds, are those of the rule; Burst that of [Pace],
	// 1 to Limit.
	Limit, Burst int64
	Window       time.Duration
	// Times is how often the step is carried out: one right after the other, with nothing
	// between and all at one moment. 0 is once. N times Times is at most MaxTotal; where that
	// would take a [Total] or [Window] beyond its bound none of them counts.
	Times int64
}

// Counted is the answer to a [Count]. With Times it is that of the last one; [Count.Nth] has
// those of the others.
type Counted struct {
	// Total is what was counted, this step included where it counted; under [Pace] it is 0.
	Total int64
	// Unproven says that a Total did not count, see [Total]. Counted.Total is then what the
	// engine knows of, 0 where nothing.
	Unproven bool
	// Allowed says that a limit let N pass. Passed is how many of Times it let pass, which
	// are the first ones. Remaining is how much it would let pass now.
	Allowed   bool
	Passed    int64
	Remaining int64
	// RetryAfter is when N would pass if nobody else came, 0 where it did. ResetAfter is
	// when everything that was counted will be forgotten.
	RetryAfter, ResetAfter time.Duration
	// Err is why the step did not happen.
	Err error
}

// Counters is the ability to count in one round trip. On engines without it the core counts
// with [Values], by reading and writing conditionally.
//
// Implementations must:
//
//   - [count] answer each step as [Count.Apply] does, at a time of the engine's clock between the call and its return;
//   - [count-order] carry out the steps of one call on one name in their order, and answer all in order, one failure not touching the others;
//   - [count-race] count every step of concurrent calls once;
//   - [count-names] keep what is counted under any two names apart, and apart from the locks and values of those names;
//   - [count-close] answer [Closed] to every step after Close.
type Counters interface {
	// Count carries out steps, each at once and undivided, and returns one answer a step.
	Count(ctx context.Context, steps []Count) []Counted
}
