package main

import (
	"context"
	"database/sql"
	"net/url"
	"strconv"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

var onMariaDB = product{
	name:  "mariadb",
	start: startMariaDB,
	adapters: []adapter{
		{name: "raw-pool", kind: raw, about: "GET_LOCK over go-sql-driver, a pool of as many connections as holdfast has", open: openGetLock(mysqllock.DefaultConnections)},
		{name: "raw-conns", kind: raw, about: "the same, a connection for each goroutine", open: openGetLock(contenders)},
		{name: "holdfast", kind: ours, about: "Mutex on mysqllock, defaults", open: holdfastAt("")},
	},
	patterns: []pattern{
		patternA1.of("raw-pool", "raw-pool", "holdfast"),
		patternA2.of("raw-pool", "raw-pool", "holdfast"),
		patternB.of("raw-pool", "raw-pool", "raw-conns", "holdfast"),
		patternD.of("raw-pool", "raw-pool", "raw-conns", "holdfast"),
		patternE.of("raw-pool", "raw-pool", "holdfast"),
	},
	targets: targetsOnDatabase,
}

func startMariaDB(l *testserver.Lab) *server {
	s := testserver.MariaDB(l, testserver.MariaDBOptions{})
	return &server{addr: s.URL(""), pids: []int{s.PID()}, clean: func() error { return cleanMariaDB(s.URL("")) }}
}

// dataSource is a URL in the notation of go-sql-driver.
func dataSource(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	return u.User.Username() + "@tcp(" + u.Host + ")" + u.Path, nil
}

// cleanMariaDB ends the sessions that are left, and empties the schema.
func cleanMariaDB(rawURL string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanWithin)
	defer cancel()
	source, err := dataSource(rawURL)
	if err != nil {
		return err
	}
	db, err := sql.Open("mysql", source)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = none(ctx, "sessions", func() (int, error) {
		left, err := sessionsOf(ctx, c)
		for _, id := range left {
			_, _ = c.ExecContext(ctx, "KILL "+strconv.FormatInt(id, 10)) // it may have ended meanwhile
		}
		return len(left), err
	})
	if err != nil {
		return err
	}
	var schema string
	if err := c.QueryRowContext(ctx, "SELECT database()").Scan(&schema); err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "DROP DATABASE "+schema); err != nil {
		return err
	}
	_, err = c.ExecContext(ctx, "CREATE DATABASE "+schema)
	return err
}

// sessionsOf returns the ids of all clients' sessions but that of c.
func sessionsOf(ctx context.Context, c *sql.Conn) (ids []int64, err error) {
	rows, err := c.QueryContext(ctx, `SELECT id FROM information_schema.processlist
		WHERE user <> 'system user' AND command <> 'Daemon' AND id <> connection_id()`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// openGetLock locks with the bare statements over so many connections at most, written out so
// that each is one round trip.
func openGetLock(connections int) func(string) (peer, error) {
	return func(rawURL string) (peer, error) {
		source, err := dataSource(rawURL)
		if err != nil {
			return nil, err
		}
		db, err := sql.Open("mysql", source)
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		return getLockPeer{db}, db.Ping()
	}
}

type getLockPeer struct{ db *sql.DB }

func (p getLockPeer) locker(key string) locker { return &getLock{db: p.db, key: key} }
func (p getLockPeer) close() error             { return p.db.Close() }

type getLock struct {
	db   *sql.DB
	key  string
	conn *sql.Conn
}

func (l *getLock) lock(ctx context.Context) (err error) {
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return err
	}
	got := int64(0)
	seconds := strconv.Itoa(int(ttl / time.Second))
	for got != 1 && err == nil {
		err = l.conn.QueryRowContext(ctx, "SELECT GET_LOCK('"+l.key+"', "+seconds+")").Scan(&got)
	}
	if err != nil {
		_ = l.conn.Close() // the driver closes it for good if the end of ctx has broken it off
	}
	return err
}

func (l *getLock) unlock() error {
	defer l.conn.Close()
	var mine sql.NullInt64
	err := l.conn.QueryRowContext(context.Background(), "SELECT RELEASE_LOCK('"+l.key+"')").Scan(&mine)
	if err == nil && mine.Int64 != 1 {
		err = errNotMine
	}
	return err
}
