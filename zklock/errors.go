package zklock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

var (
	errClosed    = driver.Fail(driver.Closed, nil)
	errGone      = errors.New("the session expired, and with it everything that it held")
	errDeadline  = errors.New("it was not renewed for its TTL")
	errRemoved   = errors.New("its node is gone: somebody broke the lock or deleted the node")
	errWithdrawn = errors.New("the request was withdrawn by a release")
)

// definite reports whether an error says that a request was not carried out and will not be.
func definite(err error) bool {
	for _, e := range []error{
		zk.ErrNoServer, zk.ErrNoAuth, zk.ErrNoNode, zk.ErrInvalidACL, zk.ErrInvalidPath, zk.ErrAuthFailed,
		zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrNodeExists, zk.ErrNotEmpty, zk.ErrShortBuffer,
		errNotConnected, errShorter,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// plain turns what the library passes on of a connection that broke under a request into what
// it says when one breaks before the answer.
func plain(err error) error {
	var broken *net.OpError
	if errors.As(err, &broken) {
		return fmt.Errorf("%w: %w", zk.ErrConnectionClosed, err)
	}
	return err
}

// classify turns an error of the library into the driver's terms.
func (e *Engine) classify(err error) *driver.Error {
	var d *driver.Error
	if errors.As(err, &d) {
		return d
	}
	if e.isClosed() {
		return errClosed
	}
	d = &driver.Error{Kind: driver.Unavailable, Err: err}
	if definite(err) {
		d.Outcome = driver.NotApplied
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, zk.ErrNoAuth):
		d.Err = fmt.Errorf("no permission below %s: give this user create, read, write and delete there, or open the engine with the user who created it: %w", e.cfg.Root, err)
	case errors.Is(err, zk.ErrInvalidACL):
		d.Kind = driver.Invalid
		d.Err = fmt.Errorf("the servers refuse Config.ACL: %w", err)
	case errors.Is(err, zk.ErrShortBuffer):
		d.Kind = driver.Invalid
		d.Err = fmt.Errorf("the request is larger than the packets that ZooKeeper takes (jute.maxbuffer): %w", err)
	case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrClosing):
		d.Err = fmt.Errorf("the connection was lost before the answer came, because of the network, the server, an ensemble without quorum, or a packet larger than its jute.maxbuffer: %w", err)
	case errors.Is(err, zk.ErrSessionExpired):
		d.Err = errors.Join(errGone, err)
	case unimplemented(err):
		d.Outcome = driver.NotApplied
	}
	return d
}

// unimplemented is what a server answers that does not know a request: the library has no
// name for it.
func unimplemented(err error) bool { return err != nil && strings.HasSuffix(err.Error(), "error: -6") }
