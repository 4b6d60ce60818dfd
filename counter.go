package holdfast

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Counter counts for all processes together within a window of time: the total starts at
// zero with the first count, and is forgotten when the window is over. It is a cheap handle
// and safe for concurrent use; goroutines that count together share a round trip.
//
// The window goes by the engine's clock. The end of a window is kept along with its total, so
// it cannot get lost by itself. A counter is as durable as the engine: after a loss it starts
// at zero.
type Counter struct {
	client *Client
	step   driver.Count
	err    error
}

// Counter returns the handle of the counter of that name, with windows of whole milliseconds, 1 ms
// to 24 h. A name or window that is wrong is reported by every use, as an ErrInvalid.
func (c *Client) Counter(name string, window time.Duration) *Counter {
	n := &Counter{client: c, step: driver.Count{Name: "counter:" + name, Rule: driver.Window, Window: window}}
	n.err = c.checkStep("counter", name, n.step)
	return n
}

// checkStep reports what is wrong with a name, or with the step that its handle makes.
func (c *Client) checkStep(op, name string, step driver.Count) error {
	err := checkPrefixed(name, step.Name)
	if err == nil {
		err = driver.CheckCount(step)
	}
	if err != nil {
		return c.fail(op, name, ErrInvalid, err)
	}
	return nil
}

// Tally is what a Counter has counted.
type Tally struct {
	Total int64
	// ResetIn is when the window ends, 0 where none has begun.
	ResetIn time.Duration
}

// Add counts n, of either sign, and returns the total of the window. With 0 it looks. After
// an error with Unknown outcome n may be counted.
func (n *Counter) Add(ctx context.Context, by int64) (Tally, error) {
	if n.err != nil {
		return Tally{}, n.err
	}
	step := n.step
	step.N = by
	if err := driver.CheckCount(step); err != nil {
		return Tally{}, n.client.fail("add", step.Name, ErrInvalid, err)
	}
	got, err := n.client.count(ctx, "add", step)
	return Tally{got.Total, got.ResetAfter}, err
}

// Reset forgets the window.
func (n *Counter) Reset(ctx context.Context) error {
	if n.err != nil {
		return n.err
	}
	_, err := n.client.count(ctx, "reset", driver.Count{Name: n.step.Name, Rule: driver.Forget})
	return err
}

// Rate is a limit: how much of something may happen in how much time. Make one with
// [FixedWindow], [SlidingWindow] or [Pace].
type Rate struct {
	rule         driver.Rule
	limit, burst int64
	window       time.Duration
}

// FixedWindow lets limit pass in every window, which begins with the first that passes. Twice
// the limit can pass around the end of a window. It is the cheapest to explain: n an hour.
func FixedWindow(limit int64, window time.Duration) Rate {
	return Rate{driver.FixedWindow, limit, 0, window}
}

// SlidingWindow lets limit pass in the window that ends now, as estimated from two fixed
// ones: what passed in the one before is taken to have come evenly. Where it did not, up to
// twice the limit can pass in a stretch of time as long as a window.
func SlidingWindow(limit int64, window time.Duration) Rate {
	return Rate{driver.SlidingWindow, limit, 0, window}
}

// Pace spaces what passes evenly, limit in a window, with up to burst at once after a pause:
// 1 to limit. It is the generic cell rate algorithm, a leaky bucket that needs one number. In
// no stretch of time as long as a window more than limit + burst pass. The space between two is
// rounded up to a whole microsecond, so that of a rate above some 10,000 a second a percent or
// more may be missing, and of one close to a million a second up to half.
func Pace(limit int64, window time.Duration, burst int64) Rate {
	return Rate{driver.Pace, limit, burst, window}
}

// Limit is how much the rate lets pass in a Window.
func (r Rate) Limit() int64 { return r.limit }

// Window is the time that Limit is for.
func (r Rate) Window() time.Duration { return r.window }

// AtOnce is the most that the rate ever lets pass in one moment.
func (r Rate) AtOnce() int64 {
	if r.rule == driver.Pace {
		return r.burst
	}
	return r.limit
}

// String returns the rate in words.
func (r Rate) String() string {
	text := fmt.Sprintf("%v, %d in %v", r.rule, r.limit, r.window)
	if r.rule == driver.Pace {
		text += fmt.Sprintf(", %d at once", r.burst)
	}
	return text
}
