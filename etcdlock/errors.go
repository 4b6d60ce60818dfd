package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	errClosed = driver.Fail(driver.Closed, nil)

	errKeyGone   = errors.New("the request's key is gone: its lease ran out, or somebody deleted it")
	errUnsteady  = errors.New("the cluster's leader changes all the time: no renewal of the lease can be relied on")
	errExhausted = errors.New("the cluster's revision is beyond 2^46, and there are no fence numbers left: move the locks to another cluster")
)

// verdict is what an error of etcd means.
type verdict struct {
	errs    []error
	outcome driver.Outcome
	lasting bool // it will not pass by itself
	advice  string
}

// verdicts are those on the errors that etcd has names for. Others have an unknown outcome,
// and are expected to pass.
var verdicts = []verdict{
	{
		errs:    []error{rpctypes.ErrPermissionDenied},
		outcome: driver.NotApplied, lasting: true,
		advice: "the user may not read and write the keys of locks: see Engine.Permissions",
	}, {
		errs: []error{
			rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken,
			rpctypes.ErrAuthNotEnabled,
		},
		outcome: driver.NotApplied, lasting: true,
		advice: "check the user and the password, and whether the cluster has authentication enabled",
	}, {
		errs:    []error{rpctypes.ErrTooManyOps},
		outcome: driver.NotApplied, lasting: true,
		advice: "set Config.MaxTxnOps to the cluster's --max-txn-ops",
	}, {
		errs:    []error{rpctypes.ErrNoSpace},
		outcome: driver.NotApplied, lasting: true,
		advice: "the database is full: compact and defragment it, or raise its quota, and disarm the alarm",
	}, {
		errs:    []error{rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)},
		outcome: driver.NotApplied, lasting: true,
		advice: "the member is a learner: name the voting members",
	}, {
		errs:    []error{rpctypes.ErrLeaseTTLTooLarge, rpctypes.ErrRequestTooLarge, rpctypes.ErrDuplicateKey, rpctypes.ErrEmptyKey},
		outcome: driver.NotApplied, lasting: true,
	}, {
		errs:    []error{rpctypes.ErrTooManyRequests, rpctypes.ErrLeaseNotFound, rpctypes.ErrAuthOldRevision},
		outcome: driver.NotApplied,
	}, {
		errs:    []error{rpctypes.ErrNoLeader},
		outcome: driver.NotApplied,
		advice:  "a majority of the cluster is down, or cut off from this member, or an election is under way",
	}, {
		errs: []error{
			rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrLeaderChanged,
		},
		outcome: driver.Unknown,
		advice:  "a majority of the cluster is down, or cut off from this member, or an election is under way",
	}, {
		errs:    []error{errUnsteady},
		outcome: driver.NotApplied,
	}, {
		errs:    []error{errExhausted},
		outcome: driver.Unknown, lasting: true,
	},
}

func verdictOn(err error) verdict {
	for _, v := range verdicts {
		if slices.ContainsFunc(v.errs, func(known error) bool { return errors.Is(err, known) }) {
			return v
		}
	}
	s, ok := status.FromError(err)
	text := err.Error()
	switch {
	case !ok:
		return verdict{}
	case s.Code() == codes.Canceled && strings.Contains(text, "connection is closing"):
		return verdict{outcome: driver.NotApplied, lasting: true, advice: "the etcd client was closed"}
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"), strings.Contains(text, "authentication handshake failed"),
		strings.Contains(text, "error reading server preface"):
		return verdict{
			outcome: driver.NotApplied, lasting: true,
			advice: "check the certificates and the authority, and whether both sides expect TLS",
		}
	case s.Code() == codes.Unavailable && (strings.Contains(text, "connection error") || strings.Contains(text, "no connection available")):
		return verdict{outcome: driver.NotApplied, advice: "no member could be reached"} // so nothing was sent
	}
	return verdict{}
}

// classify turns an error of the client into the driver's.
func (e *Engine) classify(err error) *driver.Error {
	v := verdictOn(err)
	if v.advice != "" {
		err = fmt.Errorf("%w (%s)", err, v.advice)
	}
	return &driver.Error{Kind: driver.Unavailable, Outcome: v.outcome, Err: err}
}

// leaseIsGone reports whether etcd does not know a lease any more. What hung on it is deleted,
// and what was to hang on it was not written.
func leaseIsGone(err error) bool { return errors.Is(err, rpctypes.ErrLeaseNotFound) }

// failure is classify for errors that may have been classified already.
func (e *Engine) failure(err error) *driver.Error {
	var d *driver.Error
	switch {
	case errors.As(err, &d):
		return d
	case errors.Is(err, errKeyGone):
		return driver.Fail(driver.Unavailable, err)
	}
	return e.classify(err)
}

// passing reports whether an error may go away while a request waits.
func passing(err error) bool {
	var d *driver.Error
	return errors.As(err, &d) && d.Kind == driver.Unavailable && !verdictOn(err).lasting
}

// refusal is what Acquire answers with. It has the error of a context that ended, too.
func (e *Engine) refusal(ctx context.Context, err error) error {
	d := e.failure(err)
	switch {
	case d.Kind == driver.Unavailable && e.isClosing():
		return &driver.Error{Kind: driver.Closed, Outcome: d.Outcome, Err: d.Err}
	case ctx.Err() == nil || errors.Is(d, ctx.Err()):
		return d
	}
	return &driver.Error{Kind: d.Kind, Outcome: d.Outcome, Holder: d.Holder, Err: errors.Join(ctx.Err(), d.Err)}
}

// unsettled is d, of a call that may have left something behind.
func unsettled(d *driver.Error) *driver.Error {
	return &driver.Error{Kind: d.Kind, Outcome: driver.Unknown, Holder: d.Holder, Err: d.Err}
}
