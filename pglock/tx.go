package pglock

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/holdfast-go/holdfast/driver"
)

// InTx waits for the Exclusive share of a name and takes it for as long as the caller's
// transaction lasts: the end of the transaction frees it, and nothing else does. It excludes
// the locks of engines with the same Schema and Encoding, and is excluded by them. The fence
// is larger than those of all who had the name before.
//
// There is no lease and nothing to renew; Connections, MaxTTL and the like have no effect.
// Unlike an engine's locks it works through a pooler that moves connections from one session
// to another, as a transaction stays in one. The schema has to be there: [New] makes it, or
// whoever carries out [Setup].
//
// InTx waits until ctx ends, whose error it returns then; the transaction has failed in that
// case, as after every error, and can only be rolled back. Two transactions that wait for each
// other are told so by the server. A name that the same transaction has already is granted
// again, with a new fence.
func InTx(ctx context.Context, tx *sql.Tx, name string, cfg Config) (fence int64, err error) {
	n, err := inTx(ctx, tx, name, cfg, "pg_advisory_xact_lock", "%s IS NOT NULL")
	return n.Int64, err
}

// TryInTx is [InTx] without waiting: it answers an error of kind [driver.Held] at once where
// somebody else has the name. The transaction can go on after that.
func TryInTx(ctx context.Context, tx *sql.Tx, name string, cfg Config) (fence int64, err error) {
	n, err := inTx(ctx, tx, name, cfg, "pg_try_advisory_xact_lock", "%s")
	if err == nil && !n.Valid {
		return 0, driver.Fail(driver.Held, nil)
	}
	return n.Int64, err
}

// inTx takes a lock of the transaction's, and a number where done says that it was taken.
func inTx(ctx context.Context, tx *sql.Tx, name string, cfg Config, function, done string) (n sql.NullInt64, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return n, err
	}
	if err := driver.CheckName(name); err != nil {
		return n, driver.Fail(driver.Invalid, err)
	}
	k := cfg.keysOf(name).lock
	row := tx.QueryRowContext(ctx, fmt.Sprintf("SELECT CASE WHEN "+done+" THEN nextval('%s.fence') END "+
		"FROM (SELECT $1::bigint, $2::bool) AS o(k, p)", call(function), cfg.Schema), k.n, k.pair)
	if err := row.Scan(&n); err != nil {
		return n, &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: withoutSecrets(err)}
	}
	return n, nil
}
