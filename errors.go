package holdfast

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// The kinds of failure. Match them with errors.Is; every error of this package that is not
// nil is an *[Error] of one of these kinds, or was caused by a context that had ended before
// anything was asked.
var (
	// ErrHeld: somebody else holds the lock. Error.Holder says who, where the engine knows.
	ErrHeld error = &kind{text: "held"}

	// ErrLost: the lock was held and no longer is: its lease ran out, its engine forgot it,
	// or somebody broke it.
	ErrLost error = &kind{text: "lost"}

	// ErrNotHeld: the lease was released before.
	ErrNotHeld error = &kind{text: "not held"}

	// ErrUnavailable: the engine did not answer, or not in a usable way. Error.Outcome says
	// whether the call may have taken effect.
	ErrUnavailable error = &kind{text: "engine unavailable"}

	// ErrInvalid: an argument or setting is wrong. Nothing was sent.
	ErrInvalid error = &kind{text: "invalid"}

	// ErrUnsupported: the engine cannot do this. It matches errors.ErrUnsupported as well.
	ErrUnsupported error = &kind{text: "unsupported", also: errors.ErrUnsupported}

	// ErrClosed: the client was closed.
	ErrClosed error = &kind{text: "closed"}

	// ErrStale: an expected fence or version is not the current one.
	ErrStale error = &kind{text: "stale"}
)

type kind struct {
	text string
	also error
}

func (k *kind) Error() string        { return "holdfast: " + k.text }
func (k *kind) Is(target error) bool { return k.also != nil && target == k.also }

// kinds translates the classes of drivers.
var kinds = [...]error{
	driver.Unavailable: ErrUnavailable,
	driver.Held:        ErrHeld,
	driver.Lost:        ErrLost,
	driver.NotHeld:     ErrNotHeld,
	driver.Invalid:     ErrInvalid,
	driver.Unsupported: ErrUnsupported,
	driver.Closed:      ErrClosed,
	driver.Stale:       ErrStale,
}

// kindOf translates a driver's kind; one that nobody knows is no answer to rely on.
func kindOf(k driver.Kind) error {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return ErrUnavailable
}

// Outcome says whether a failed call took effect on the engine.
type Outcome = driver.Outcome

// The outcomes. After Unknown on an acquire, the client releases in the background whatever
// may have been granted.
const (
	Unknown    = driver.Unknown    // it may have taken effect, and may still do so
	NotApplied = driver.NotApplied // it did not and will not take effect
	Applied    = driver.Applied    // it took effect, though the call failed
)

// Holder describes who holds a lock, as far as the engine knows. Its texts come from other
// processes and are not to be trusted.
type Holder = driver.Holder

// Error is what every call of this package fails with.
type Error struct {
	Op      string  // the call, for example "lock" or "unlock"
	Name    string  // the lock's name, empty for calls that concern none
	Engine  string  // the engine's package, for example "redislock"
	Kind    error   // one of the kinds above; nil when ctx had ended before anything was asked
	Outcome Outcome // whether the call took effect
	Holder  *Holder // with ErrHeld: who holds it, nil when not known
	Err     error   // the cause: the engine's own error or the context's, nil when Kind says it all
}

// Error returns one line for people. Programs match the kinds.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("holdfast: ")
	b.WriteString(e.Op)
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", shorten(e.Name))
	}
	if e.Engine != "" {
		b.WriteString(" on ")
		b.WriteString(e.Engine)
	}
	if k, ok := e.Kind.(*kind); ok {
		b.WriteString(": ")
		b.WriteString(k.text)
	}
	if e.Holder != nil {
		b.WriteString(describe(e.Holder))
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// describe puts a holder into words.
func describe(h *Holder) string {
	var b strings.Builder
	if h.Owner != "" {
		fmt.Fprintf(&b, " by %q", shorten(h.Owner))
	}
	if !h.Since.IsZero() {
		b.WriteString(" since " + h.Since.Format(time.RFC3339))
	}
	if !h.Until.IsZero() {
		b.WriteString(" until " + h.Until.Format(time.RFC3339))
	}
	return b.String()
}

// shorten keeps long names from filling a message.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Unwrap returns the kind and the cause, so that errors.Is sees both.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 2)
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// wrap turns an engine's error into the one that users see. It is the only place that does.
func (c *Client) wrap(op, name string, err error) *Error {
	e := &Error{Op: op, Name: name, Engine: c.caps.Engine}
	var d *driver.Error
	if errors.As(err, &d) {
		e.Kind, e.Outcome, e.Holder, e.Err = kindOf(d.Kind), d.Outcome, d.Holder, d.Err
		return e
	}
	e.Kind, e.Err = ErrUnavailable, err
	return e
}

// fail builds an error that took no effect.
func (c *Client) fail(op, name string, kind, cause error) *Error {
	return &Error{Op: op, Name: name, Engine: c.caps.Engine, Kind: kind, Outcome: NotApplied, Err: cause}
}
