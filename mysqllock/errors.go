package mysqllock

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/holdfast-go/holdfast/driver"
)

var (
	errClosed    = driver.Fail(driver.Closed, nil)
	errLost      = driver.Fail(driver.Lost, nil)
	errNotHeld   = driver.Fail(driver.NotHeld, nil)
	errWithdrawn = errors.New("the request was withdrawn")
	errGone      = errors.New("the session with the server has ended, and its locks with it")
	errSwapped   = errors.New("another session answers than the one that was opened: a proxy stands between, or a driver connected anew; connect to the server itself")
	errGarbled   = errors.New("the server's reply cannot be read: is something else answering there?")
	errReadOnly  = errors.New("the server is read-only, so it is a replica or about to become one, and grants no locks: connect to the primary")
)

// Numbers of errors, the same in MySQL and MariaDB.
const (
	codeAccessDenied = 1044
	codeNoTable      = 1146
	codeNoColumn     = 1054
	codeLockWait     = 1205
	codeDeadlock     = 1213
	codeInterrupted  = 1317
)

var codeText = regexp.MustCompile(`\bError (\d{4})\b`)

// codeOf returns the number of an error that the server itself answered, 0 for all others. It
// reads the text: the drivers' types are not known here.
func codeOf(err error) int {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return 0
	}
	if m := codeText.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// classify turns the error of a statement into the driver's, with outcome o.
func (e *Engine) classify(err error, o driver.Outcome) *driver.Error {
	var d *driver.Error
	if errors.As(err, &d) {
		return d
	}
	code := codeOf(err)
	switch code {
	case codeAccessDenied, 1142, 1143, 1227, 1370:
		err = fmt.Errorf("%w; if the user lacks a right, have one that may carry out this:\n%s", err, Setup(e.cfg))
	case 1290, 1792, 1836:
		err = fmt.Errorf("%w (%w)", errReadOnly, err)
	case 1665:
		err = fmt.Errorf("binlog_format STATEMENT cannot carry locks and fences to replicas: set it to ROW or MIXED (%w)", err)
	case codeNoColumn:
		return driver.Failf(driver.Invalid, "the table %s is not this engine's: name another in Config.Table (%w)", e.cfg.Table, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within the timeout of %v: %w", e.cfg.Timeout, err)
	}
	if code != 0 {
		o = driver.NotApplied
	}
	return &driver.Error{Kind: driver.Unavailable, Outcome: o, Err: err}
}

// ended is the error of a call whose context has ended.
func ended(err error) *driver.Error {
	return &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: err}
}
