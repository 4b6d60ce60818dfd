package store

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Bounds of a [Request].
const (
	MaxKey      = 255             // bytes of an idempotency key
	MaxCustomer = 200             // bytes of a customer's name
	MaxCents    = 100_000_000_000 // a thousand million
)

// Request is what a customer owes, and the key under which it is asked for. However often a
// request is sent, to however many instances: there is one invoice for its key.
type Request struct {
	Key      string `json:"-"`
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

// Check reports everything that is wrong with a request, field by field.
func (r Request) Check() error {
	var wrong []error
	if len(r.Key) < 1 || len(r.Key) > MaxKey || strings.ContainsFunc(r.Key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		wrong = append(wrong, fmt.Errorf("the Idempotency-Key has to be 1 to %d printable ASCII characters, new for every invoice and the same for its repetitions", MaxKey))
	}
	if len(r.Customer) < 1 || len(r.Customer) > MaxCustomer || strings.ContainsFunc(r.Customer, unicode.IsControl) {
		wrong = append(wrong, fmt.Errorf("customer has to be 1 to %d bytes without control characters", MaxCustomer))
	}
	if r.Cents < 1 || r.Cents > MaxCents {
		wrong = append(wrong, fmt.Errorf("cents is %d: it has to be 1 to %d", r.Cents, int64(MaxCents)))
	}
	return errors.Join(wrong...)
}

// Invoice is a request that was given a number.
type Invoice struct {
	ID       int64     `json:"id"` // in the order of insertion; has gaps, and says nothing to customers
	Number   int64     `json:"number"`
	Customer string    `json:"customer"`
	Cents    int64     `json:"cents"`
	Key      string    `json:"key"`
	Instance int       `json:"instance"`        // that issued it
	Fence    int64     `json:"fence,omitempty"` // of the lease under which it was issued
	Issued   time.Time `json:"issued"`          // by the clock of the instance, to the microsecond
}

// Request returns what the invoice was issued for.
func (i Invoice) Request() Request { return Request{Key: i.Key, Customer: i.Customer, Cents: i.Cents} }
