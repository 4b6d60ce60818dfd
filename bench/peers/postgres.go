package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	gopglock "github.com/allisson/go-pglock/v3"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
)

var onPostgres = product{
	name:  "postgres",
	start: startPostgres,
	adapters: []adapter{
		{name: "raw-pool", kind: raw, about: "pg_advisory_lock over pgx, a pool of as many connections as holdfast has", open: openAdvisory(pglock.DefaultConnections)},
		{name: "raw-conns", kind: raw, about: "the same, a connection for each goroutine", open: openAdvisory(contenders)},
		{name: "go-pglock", kind: byDefault, about: "allisson/go-pglock over lib/pq, a Lock for each turn", open: openGoPglock},
		{name: "go-pglock-tuned", kind: atBest, about: "allisson/go-pglock over pgx, a Lock for each goroutine", open: openGoPglockTuned},
		{name: "holdfast", kind: ours, about: "Mutex on pglock, defaults", open: holdfastAt("")},
	},
	patterns: []pattern{
		patternA1.of("raw-pool", alwaysOnPostgres...),
		patternA2.of("raw-pool", alwaysOnPostgres...),
		patternB.of("raw-pool", slices.Concat(alwaysOnPostgres, []string{"raw-conns"})...),
		patternD.of("raw-pool", slices.Concat(alwaysOnPostgres, []string{"raw-conns"})...),
		patternE.of("raw-pool", alwaysOnPostgres...),
	},
	targets: targetsOnDatabase,
}

var alwaysOnPostgres = []string{"raw-pool", "go-pglock", "go-pglock-tuned", "holdfast"}

// targetsOnDatabase are to the bare statements, at whatever number of connections is best.
var targetsOnDatabase = []target{
	{pattern: "a1", what: "time of a cycle to the bare statements", value: cycleTime, to: []string{"raw-pool"}, limit: 1.2},
	{pattern: "a2", what: "time of a cycle to the bare statements", value: cycleTime, to: []string{"raw-pool"}, limit: 1.2},
	{pattern: "b", what: "cycles/s to the bare statements", value: rate, to: bareStatements, limit: 1.3, least: true},
	{pattern: "d", what: "turns/s to the bare statements", value: rate, to: bareStatements, limit: 20, least: true},
	{pattern: "e", what: "hand-overs/s to the bare statements", value: handoverRate, to: []string{"raw-pool"}, limit: 0.9, least: true},
}

var bareStatements = []string{"raw-pool", "raw-conns"}

// contenders is how many goroutines of a process want locks of a database at most.
const contenders = 64

func startPostgres(l *testserver.Lab) *server {
	s := testserver.Postgres(l, testserver.PostgresOptions{Config: []string{"max_connections = 300"}})
	return &server{addr: s.URL(), pids: []int{s.PID()}, clean: func() error { return cleanPostgres(s.URL()) }}
}

// cleanPostgres ends the sessions that are left, and drops what holdfast has made.
func cleanPostgres(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanWithin)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	const left = `FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`
	if _, err := c.Exec(ctx, "SELECT pg_terminate_backend(pid) "+left); err != nil {
		return err
	}
	err = none(ctx, "sessions", func() (n int, err error) {
		return n, c.QueryRow(ctx, "SELECT count(*) "+left).Scan(&n)
	})
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "DROP SCHEMA IF EXISTS holdfast CASCADE")
	return err
}

// cleanWithin bounds how long what a cell has left may take to go away.
const cleanWithin = 20 * time.Second

// none waits until nothing of what count counts is left.
func none(ctx context.Context, what string, count func() (int, error)) error {
	for {
		n, err := count()
		if n == 0 || err != nil {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%d %s of the last cell are left: %w", n, what, err)
		}
	}
}

// advisoryKey is the number of a lock.
func advisoryKey(key string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // it cannot fail
	return int64(h.Sum64())
}

// openAdvisory locks with the bare statements, over a pool of so many connections.
func openAdvisory(connections int32) func(string) (peer, error) {
	return func(url string) (peer, error) {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		cfg.MaxConns = connections
		pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
		if err != nil {
			return nil, err
		}
		if err := pool.Ping(context.Background()); err != nil {
			pool.Close()
			return nil, err
		}
		return advisoryPeer{pool}, nil
	}
}

type advisoryPeer struct{ pool *pgxpool.Pool }

func (p advisoryPeer) locker(key string) locker {
	return &advisoryLock{pool: p.pool, key: advisoryKey(key)}
}
func (p advisoryPeer) close() error { p.pool.Close(); return nil }

type advisoryLock struct {
	pool *pgxpool.Pool
	key  int64
	conn *pgxpool.Conn
}

func (l *advisoryLock) lock(ctx context.Context) (err error) {
	if l.conn, err = l.pool.Acquire(ctx); err != nil {
		return err
	}
	if _, err = l.conn.Exec(ctx, "SELECT pg_advisory_lock($1)", l.key); err != nil {
		l.conn.Release() // closed, if the end of ctx has broken it off
	}
	return err
}

func (l *advisoryLock) unlock() error {
	defer l.conn.Release()
	var mine bool
	err := l.conn.QueryRow(context.Background(), "SELECT pg_advisory_unlock($1)", l.key).Scan(&mine)
	if err == nil && !mine {
		err = errNotMine
	}
	return err
}

type goPglockPeer struct {
	db   *sql.DB
	keep bool // a goroutine's Lock, and its connection, from one turn to the next
}

func openGoPglock(url string) (peer, error) {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return nil, err
	}
	return goPglockPeer{db: db}, db.Ping()
}

func openGoPglockTuned(url string) (peer, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	return goPglockPeer{db: db, keep: true}, db.Ping()
}

func (p goPglockPeer) locker(key string) locker {
	return &goPglockLock{peer: p, key: advisoryKey(key)}
}
func (p goPglockPeer) close() error { return p.db.Close() }

type goPglockLock struct {
	peer goPglockPeer
	key  int64
	held *gopglock.Lock
}

func (l *goPglockLock) lock(ctx context.Context) error {
	if l.held == nil {
		held, err := gopglock.NewLock(ctx, l.key, l.peer.db)
		if err != nil {
			return err
		}
		l.held = &held
	}
	err := l.held.WaitAndLock(ctx)
	if err != nil {
		err = errors.Join(err, l.end())
	}
	return err
}

func (l *goPglockLock) unlock() error {
	err := l.held.Unlock(context.Background())
	if err != nil || !l.peer.keep {
		err = errors.Join(err, l.end())
	}
	return err
}

func (l *goPglockLock) end() error {
	held := l.held
	l.held = nil
	return held.Close()
}
