package pglock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// errMoved says that a statement reached another session than the one that it was for.
var errMoved = fmt.Errorf("the connection was moved to another session of the server: %w", errPooled)

// errNotThere says that a lock which the books have was not held: somebody has interfered with
// the session, whose other locks are not to be relied on either.
var errNotThere = errors.New("the session did not hold the lock any more: something else has used it")

// Codes of the server that mean something here.
const (
	insufficientPrivilege = "42501"
	queryCanceled         = "57014"
	lockNotAvailable      = "55P03"
	outOfMemory           = "53200"
	undefinedTable        = "42P01"
	undefinedColumn       = "42703"
	readOnlyTransaction   = "25006"
	noStatement           = "26000" // of that name, and
	sameStatement         = "42P05" // there is one already: of another connection's session
)

// stateOf returns the SQLSTATE of the server's error, "" where err is none.
func stateOf(err error) string {
	var coded interface{ SQLState() string }
	if errors.As(err, &coded) {
		return coded.SQLState()
	}
	return ""
}

// isOver reports whether an error means the end of the session: anything but the server's
// refusal of a statement.
func isOver(err error) bool {
	state := stateOf(err)
	return state == "" || strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P") ||
		strings.HasPrefix(state, "XX") || state == noStatement || state == sameStatement
}

// explain turns the server's refusal of a statement, all of which was taken back, into the
// driver's error.
func (e *Engine) explain(err error) *driver.Error {
	switch stateOf(err) {
	case outOfMemory:
		err = fmt.Errorf("the server's table of locks is full: raise max_locks_per_transaction (%w)", err)
	case lockNotAvailable:
		err = fmt.Errorf("something in schema %s is locked: see pg_locks for who does that (%w)", e.cfg.Schema, err)
	case undefinedColumn:
		return driver.Failf(driver.Invalid, "schema %s has tables that are not this engine's: name another in Config.Schema (%w)", e.cfg.Schema, err)
	case readOnlyTransaction:
		err = fmt.Errorf("the server, or the role, is read-only: connect to the primary, as a role without default_transaction_read_only (%w)", err)
	case insufficientPrivilege:
		err = fmt.Errorf("the role lacks a right: have one that may carry out this\n%s\n(%w)", Setup(e.cfg), err)
	}
	return driver.Fail(driver.Unavailable, err)
}

// unreachable classifies the failure to open something. Nothing was locked.
func (e *Engine) unreachable(err error) error {
	var known *driver.Error
	if errors.As(err, &known) {
		return err
	}
	switch {
	case stateOf(err) == "" && errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no session within %v: is the server there, and does the pool leave room for %d connections? %w", e.cfg.Timeout, e.cfg.Connections, err)
	case stateOf(err) == noStatement, stateOf(err) == sameStatement:
		return driver.Fail(driver.Unsupported, fmt.Errorf("%w (%w)", errPooled, err))
	case stateOf(err) == readOnlyTransaction:
		return e.explain(err)
	}
	return driver.Fail(driver.Unavailable, withoutSecrets(err))
}

// secretError is an error whose text is shown without what may be a password. Drivers quote
// the URL that they cannot read.
type secretError struct {
	text string
	err  error
}

func (s *secretError) Error() string { return s.text }
func (s *secretError) Unwrap() error { return s.err }

// withoutSecrets hides passwords of URLs and of key=value strings in the text of err.
func withoutSecrets(err error) error {
	words := strings.Fields(err.Error())
	changed := false
	for i, w := range words {
		if _, rest, ok := strings.Cut(w, "password="); ok && rest != "" {
			words[i], changed = "password=xxxxx", true
		}
		if start := strings.Index(w, "postgres"); start >= 0 && strings.Contains(w, "://") && strings.Contains(w, "@") {
			if u, err := url.Parse(strings.Trim(w[start:], "`\"',:;()")); err == nil {
				words[i] = u.Redacted()
			} else {
				words[i] = "postgres://xxxxx"
			}
			changed = true
		}
	}
	if !changed {
		return err
	}
	return &secretError{text: strings.Join(words, " "), err: err}
}
