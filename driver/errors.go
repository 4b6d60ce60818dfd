package driver

import "fmt"

// Kind classifies a failure. The zero Kind is Unavailable: what nobody classified is not
// known to be anything better.
type Kind uint8

// The kinds of failure.
const (
	Unavailable Kind = iota // the engine did not answer, or not in a usable way
	Held                    // somebody else holds the share
	Lost                    // the token held the share and no longer does
	NotHeld                 // the token holds nothing
	Invalid                 // the request contradicts itself, the engine's limits or what is stored
	Unsupported             // the engine cannot do this at all
	Closed                  // the engine was closed
	Stale                   // an expected fence is not the current one
)

var kindNames = [...]string{
	"unavailable", "held", "lost", "not held", "invalid", "unsupported", "closed", "stale",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", k)
}

// Outcome says whether a failed call took effect. The zero Outcome is Unknown.
type Outcome uint8

// The outcomes.
const (
	Unknown    Outcome = iota // it may have taken effect, and may still do so
	NotApplied                // it did not and will not take effect
	Applied                   // it took effect, though the call failed
)

// String returns the outcome in words.
func (o Outcome) String() string {
	switch o {
	case NotApplied:
		return "not applied"
	case Applied:
		return "applied"
	default:
		return "unknown"
	}
}

// Error classifies the raw error of an engine. The core turns it into the *holdfast.Error
// that users see, so engines do not put names or operations into the text.
type Error struct {
	Kind    Kind
	Outcome Outcome
	Holder  *Holder // with Held: who holds it, as far as the engine knows
	Err     error   // the raw error; nil where Kind says it all
}

// Error returns the raw error's text, or the kind where there is none.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Kind.String() + ": " + e.Err.Error()
	}
	return e.Kind.String()
}

// Unwrap returns the raw error.
func (e *Error) Unwrap() error { return e.Err }

// Fail returns an error of kind k that took no effect.
func Fail(k Kind, err error) *Error { return &Error{Kind: k, Outcome: NotApplied, Err: err} }

// Failf is [Fail] with a formatted text.
func Failf(k Kind, format string, args ...any) *Error {
	return Fail(k, fmt.Errorf(format, args...))
}
