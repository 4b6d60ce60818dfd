package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// databases is the PostgreSQL server of a report.
type databases struct {
	server  *testserver.PostgresServer
	version string
	made    int
}

// database is one of it, of a row.
type database struct{ url string }

// queryTimeout bounds what the cluster itself asks the database.
const queryTimeout = 30 * time.Second

// startDatabases starts the server. It does not wait for the disk.
func startDatabases(l *testserver.Lab) (*databases, error) {
	d := &databases{}
	err := l.Do(func() {
		d.server = testserver.Postgres(l, testserver.PostgresOptions{Config: []string{"max_connections = 600"}})
	})
	if err == nil {
		err = query(d.server.URL(), func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, "SHOW server_version").Scan(&d.version)
		})
		d.version, _, _ = strings.Cut(d.version, " ") // of who packaged it
	}
	return d, err
}

// query calls f with a connection of its own.
func query(url string, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return f(ctx, c)
}

// create makes an empty database.
func (d *databases) create() (*database, error) {
	d.made++
	name := fmt.Sprintf("invoices%d", d.made)
	err := query(d.server.URL(), func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "CREATE DATABASE "+name)
		return err
	})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(d.server.URL())
	if err != nil {
		return nil, err
	}
	u.Path = "/" + name
	return &database{u.String()}, nil
}

// endSessionsOfLocks ends the sessions in which pglock holds the locks of all instances.
func (d *database) endSessionsOfLocks() error {
	return query(d.url, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'holdfast%'`)
		return err
	})
}

// point is where an instance can be held up in its work.
type point struct {
	mode      string // of the lock on the ledger that does it
	statement string // of the instance, that has to wait
}

var (
	beforeReading = point{"ACCESS EXCLUSIVE", "SELECT"}
	beforeWriting = point{"SHARE", "UPDATE"} // having read
)

// errElsewhere says that an instance was held up at another point.
var errElsewhere = errors.New("an instance is past that point")

// holdUp holds up the instances at a point, calls f with the number of the one that gets there, and lets
// it go on.
func (d *database) holdUp(at point, f func(instance int, tx pgx.Tx) error) error {
	return query(d.url, func(ctx context.Context, c *pgx.Conn) (err error) {
		for err = errElsewhere; errors.Is(err, errElsewhere); {
			err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "LOCK TABLE ledger IN "+at.mode+" MODE"); err != nil {
					return err
				}
				instance, err := heldUp(ctx, tx, at)
				if err == nil {
					err = f(instance, tx)
				}
				return err
			})
		}
		return err
	})
}

// heldUp returns the number of the instance that is held up, once one is.
func heldUp(ctx context.Context, tx pgx.Tx, at point) (int, error) {
	for {
		waiting, err := waiters(ctx, tx)
		for instance, statement := range waiting {
			if strings.HasPrefix(statement, at.statement) {
				return instance, nil
			}
			return 0, errElsewhere
		}
		if err != nil {
			return 0, err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return 0, fmt.Errorf("no instance comes to the ledger: %w", err)
		}
	}
}

// waiters returns the instances that wait for a lock in the database, each with a statement of theirs
// that does.
func waiters(ctx context.Context, tx pgx.Tx) (map[int]string, error) {
	// What the server tells of sessions would stay the same within a transaction.
	if _, err := tx.Exec(ctx, `SELECT pg_stat_clear_snapshot()`); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT substring(application_name FROM '^invoices (\d+)$')::int, query FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE 'invoices %'`)
	if err != nil {
		return nil, err
	}
	all := map[int]string{}
	var instance int
	var statement string
	_, err = pgx.ForEachRow(rows, []any{&instance, &statement}, func() error {
		all[instance] = statement
		return nil
	})
	return all, err
}

// pause waits for so long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
