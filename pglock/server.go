package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// server is what New finds out.
type server struct {
	version  int    // as 150018
	idle     bool   // it ends sessions that were silent for too long
	instance string // host:port/database
	span     int64  // how many numbers one value of the sequence stands for
}

// maxFence is the largest number that JSON readers keep exact. maxClock is how far a clock may
// drive the sequence, the year 2219: one that is absurdly wrong for a moment then leaves 2^50
// numbers to count on with.
const (
	maxFence = 1<<53 - 1
	maxClock = maxFence - 1<<50
)

// fenceSpan is how many numbers a value of a new sequence stands for: as many as a process
// hands over a lock in a row by default.
const fenceSpan = 64

// serverMicros is the server's clock.
const serverMicros = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// Setup returns the SQL that makes what an engine with that Config needs, for those who keep
// the right to do so from the role that locks, with the rights that such a role needs then:
// replace PUBLIC by it. New carries out all but the last part by itself where it may. It can
// be repeated.
func Setup(cfg Config) string {
	cfg = cfg.withDefaults()
	return setupText(cfg.Schema) + fmt.Sprintf(`
GRANT USAGE ON SCHEMA %[1]s TO PUBLIC;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE %[1]s.fence TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON %[1]s.sessions, %[1]s.shares, %[1]s.stored_values TO PUBLIC;`, cfg.Schema)
}

func setupText(schema string) string {
	return fmt.Sprintf(`CREATE SCHEMA IF NOT EXISTS %[1]s;
CREATE SEQUENCE IF NOT EXISTS %[1]s.fence AS bigint INCREMENT BY %[2]d MINVALUE 1 MAXVALUE %[3]d NO CYCLE CACHE 1;
CREATE UNLOGGED TABLE IF NOT EXISTS %[1]s.sessions (id bigint PRIMARY KEY, pid int NOT NULL, owner text NOT NULL, beat bigint NOT NULL);
CREATE UNLOGGED TABLE IF NOT EXISTS %[1]s.shares (session bigint, share bigint, name text COLLATE "C" NOT NULL, mode int NOT NULL, weight int NOT NULL, permits int NOT NULL, owner text NOT NULL, first bigint NOT NULL, last bigint NOT NULL, since bigint NOT NULL, broken bool NOT NULL DEFAULT false, PRIMARY KEY (session, share));
CREATE INDEX IF NOT EXISTS shares_name ON %[1]s.shares (name);
CREATE TABLE IF NOT EXISTS %[1]s.stored_values (name bytea PRIMARY KEY, version bigint NOT NULL, fence bigint NOT NULL, until bigint NOT NULL, data bytea NOT NULL);
CREATE INDEX IF NOT EXISTS stored_values_until ON %[1]s.stored_values (until) WHERE until > 0;`,
		schema, fenceSpan, maxFence-fenceSpan+1)
}

// greet looks at the server, and makes what the engine needs there.
func (e *Engine) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return e.unreachable(err)
	}
	defer conn.Close()
	if err := e.identify(ctx, conn); err != nil {
		return err
	}
	if err := e.pooled(ctx, conn); err != nil {
		return err
	}
	// The table of values is looked for when there are any: those who use locks only, and made
	// the rest when there were no values, need not make it.
	if err := e.setUp(ctx, conn, "{fence,sessions,shares,shares_name}"); err != nil {
		return err
	}
	return e.checkFence(ctx, conn)
}

// identify finds out what server it is.
func (e *Engine) identify(ctx context.Context, conn *sql.Conn) error {
	var recovery bool
	var host, database sql.NullString
	var port sql.NullInt64
	err := conn.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),
		host(inet_server_addr()), inet_server_port(), current_database()`).
		Scan(&e.server.version, &recovery, &host, &port, &database)
	if err != nil {
		return e.unreachable(err)
	}
	e.server.idle = e.server.version >= 140000
	e.server.instance = database.String
	if host.Valid {
		e.server.instance = net.JoinHostPort(host.String, fmt.Sprint(port.Int64)) + "/" + database.String
	}
	switch {
	case e.server.version < 100000:
		return driver.Failf(driver.Unsupported, "the server is PostgreSQL %d: use 10 or later", e.server.version/10000)
	case recovery:
		return driver.Failf(driver.Unsupported, "the server is a standby: locks taken there are not seen by others; connect to the primary (target_session_attrs=read-write)")
	}
	return nil
}

// errPooled is why a transaction-pooling proxy is refused.
var errPooled = errors.New("a pooler between here and the server moves connections from one session to another after every transaction " +
	"(PgBouncer's pool_mode transaction or statement): locks belong to a session, and would be left behind in one that serves others; " +
	"connect to the server itself, or through a pool of pool_mode session")

// pooled refuses a proxy that moves connections from one session to another.
//
// While nothing is under way here, such a proxy has its session serve others: the next who
// asks gets the one that was idle last, or another idle one, and this connection another in
// its turn. So either two connections that are open at once are served by one session, or
// this one is served by two.
func (e *Engine) pooled(ctx context.Context, conn *sql.Conn) error {
	if e.cfg.Connections < 2 {
		return nil // there may be no second one; the first statement that goes astray will tell
	}
	other, err := e.db.Conn(ctx)
	if err != nil {
		return e.unreachable(err)
	}
	defer other.Close()
	for range 3 {
		before, err := processOf(ctx, conn)
		if err != nil {
			return e.unreachable(err)
		}
		tx, err := other.BeginTx(ctx, nil)
		if err != nil {
			return e.unreachable(err)
		}
		after := before
		beside, err := processOf(ctx, tx)
		if err == nil && beside != before { // or the answer would not come before the rollback
			after, err = processOf(ctx, conn)
		}
		if err = errors.Join(err, tx.Rollback()); err != nil {
			return e.unreachable(err)
		}
		if before == beside || before != after {
			return driver.Fail(driver.Unsupported, errPooled)
		}
	}
	return nil
}

func processOf(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (pid int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid)
	return pid, err
}

// setUp makes what is not there, if anything of needed, an array, is not.
func (e *Engine) setUp(ctx context.Context, conn *sql.Conn, needed string) error {
	var there bool
	err := conn.QueryRowContext(ctx, "SELECT count(to_regclass($1 || '.' || n)) = count(*) FROM unnest($2::text[]) AS n",
		e.cfg.Schema, needed).Scan(&there)
	if err == nil && there {
		return nil
	}
	// Without the lock, two that begin at once would fail at each other's half-made schema.
	// It goes with the transaction.
	var tx *sql.Tx
	if err == nil {
		tx, err = conn.BeginTx(ctx, nil)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", e.cfg.hash("setup", ""))
		for statement := range strings.SplitSeq(setupText(e.cfg.Schema), ";\n") {
			if err == nil {
				_, err = tx.ExecContext(ctx, statement)
			}
		}
		if err == nil {
			err = tx.Commit()
		} else {
			err = errors.Join(err, tx.Rollback())
		}
	}
	switch {
	case err == nil:
		return nil
	case stateOf(err) == insufficientPrivilege:
		return driver.Fail(driver.Unavailable, fmt.Errorf("the role may not make what the engine needs: have one that may carry out this, then try again\n%s\n(%w)", Setup(e.cfg), err))
	}
	return e.unreachable(err)
}

// checkFence looks whether the sequence is one that fences can come from, and may.
func (e *Engine) checkFence(ctx context.Context, conn *sql.Conn) error {
	var increment, cache, highest int64
	var cycles, allowed bool
	err := conn.QueryRowContext(ctx, `SELECT seqincrement, seqcache, seqmax, seqcycle,
			has_sequence_privilege(seqrelid, 'USAGE') AND has_sequence_privilege(seqrelid, 'SELECT') AND has_sequence_privilege(seqrelid, 'UPDATE')
			AND (SELECT bool_and(has_table_privilege($2 || t, p)) FROM unnest('{.sessions,.shares}'::text[]) AS t, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p)
		FROM pg_sequence WHERE seqrelid = to_regclass($1)::oid`, e.cfg.Schema+".fence", e.cfg.Schema).
		Scan(&increment, &cache, &highest, &cycles, &allowed)
	switch {
	case err != nil && stateOf(err) != insufficientPrivilege && !errors.Is(err, sql.ErrNoRows):
		return e.unreachable(err)
	case err != nil || !allowed:
		return driver.Fail(driver.Unavailable, fmt.Errorf("the role may not use what is in schema %s: have one that may carry out this, then try again\n%s", e.cfg.Schema, Setup(e.cfg)))
	case increment < 1 || cache != 1 || cycles || highest > maxFence-increment+1:
		return driver.Failf(driver.Invalid, "the sequence %s.fence has INCREMENT %d, CACHE %d, MAXVALUE %d, CYCLE %t: fences would not grow; "+
			"it needs a positive INCREMENT, CACHE 1, NO CYCLE and a MAXVALUE of %d at most", e.cfg.Schema, increment, cache, highest, cycles, maxFence-increment+1)
	}
	e.server.span = increment
	return nil
}
