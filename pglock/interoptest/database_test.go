package interoptest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/pglock"
)

func TestDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t, "max_locks_per_transaction = 10", "max_connections = 60")
	for name, run := range map[string]func(*bench){
		"InTx": inTx, "DotNet": dotNet, "Rights": rights, "FullTable": fullTable, "LostSequence": lostSequence,
		"WrongSequence": wrongSequence, "URL": opensURL, "NoServer": noServer, "ForeignHolder": foreignHolder, "SmallPool": smallPool,
		"Diagnose": diagnose,
	} {
		t.Run(name, func(t *testing.T) { run(b.sub(t)) })
	}
}

// inTx: the lock of a transaction and an engine's exclude each other, in both directions.
func inTx(b *bench) {
	e := b.engine("pgx", pglock.Config{})
	for _, through := range drivers {
		db := pool(b.T, through, b.server.URL())
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		fence, err := pglock.InTx(b.Context(), tx, "tx", pglock.Config{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Acquire(b.Context(), request("tx", "engine", long)); !isKind(err, driver.Held) {
			b.Errorf("request for what a transaction has: %v", err)
		}
		w := b.wait(e, request("tx", "engine", long))
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		h := w.granted()
		if h.grant.Fence <= fence {
			b.Errorf("fence %d after %d", h.grant.Fence, fence)
		}
		if tx, err = db.Begin(); err != nil {
			b.Fatal(err)
		}
		if _, err := pglock.TryInTx(b.Context(), tx, "tx", pglock.Config{}); !isKind(err, driver.Held) {
			b.Errorf("request in a transaction for what an engine has: %v", err)
		}
		b.released(h)
		if later, err := pglock.TryInTx(b.Context(), tx, "tx", pglock.Config{}); err != nil || later <= h.claim.Fence {
			b.Errorf("fence %d after %d (%v)", later, h.claim.Fence, err)
		}
		if err := tx.Rollback(); err != nil {
			b.Error(err)
		}
		b.released(b.take(e, request("tx", "engine", long)))
		if _, err := pglock.InTx(b.Context(), tx, "\n", pglock.Config{}); !isKind(err, driver.Invalid) {
			b.Errorf("a bad name: %v", err)
		}
	}
}

// dotNet: what DistributedLock for .NET sends and an engine's locks exclude each other. The
// statements are those of its PostgresDistributedLock, with the keys of its tests.
func dotNet(b *bench) {
	e := b.engine("pgx", pglock.Config{Schema: "dotnet", Encoding: pglock.DotNet})
	session, err := b.admin.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	for name, key := range map[string]string{
		"0000000000000001":      "1",
		"00000003,ffffffff":     "3, -1",
		strings.Repeat("漢", 18): "-5707277204051710361",
		"A":                     "(((65::bigint << 57) | ((1::bigint << 56) - 1)) >> 32)::int, ((1::bigint << 32) - 1)::bit(32)::int",
		"ffffffffffffffff":      "-1",
	} {
		var ok bool
		lock := func(function string) bool {
			if err := session.QueryRowContext(b.Context(), "SELECT "+function+"("+key+")").Scan(&ok); err != nil {
				b.Fatalf("%s(%s): %v", function, key, err)
			}
			return ok
		}
		h := b.take(e, request(name, "engine", long))
		if lock("pg_try_advisory_lock") || lock("pg_try_advisory_lock_shared") {
			b.Errorf("%q: the other side got a lock that is held", name)
		}
		b.released(h)
		if !lock("pg_try_advisory_lock") {
			b.Errorf("%q: the other side did not get a lock that is free", name)
		}
		if _, err := e.Acquire(b.Context(), request(name, "engine", long)); !isKind(err, driver.Held) {
			b.Errorf("%q: request for what the other side has: %v", name, err)
		}
		w := b.wait(e, request(name, "engine", long))
		if !lock("pg_advisory_unlock") {
			b.Errorf("%q: the other side lost its lock", name)
		}
		b.released(w.granted())
	}
}

// rights: a role that may not make what is needed is told what to have made, and what it is
// told is enough.
func rights(b *bench) {
	b.exec("CREATE ROLE app LOGIN PASSWORD 'topsecret'")
	b.exec("REVOKE CREATE ON DATABASE postgres FROM PUBLIC")
	cfg := pglock.Config{Schema: "rights"}
	u, _ := url.Parse(b.server.URL())
	u.User = url.UserPassword("app", "topsecret")
	for _, through := range drivers {
		db := pool(b.T, through, u.String())
		_, err := pglock.New(b.Context(), db, cfg)
		if !isKind(err, driver.Unavailable) || !strings.Contains(err.Error(), pglock.Setup(cfg)) || strings.Contains(err.Error(), "topsecret") {
			b.Errorf("New without rights: %v", err)
		}
	}
	for statement := range strings.SplitSeq(pglock.Setup(cfg), ";\n") {
		b.exec(statement)
	}
	for _, through := range drivers {
		e := engine(b.T, pool(b.T, through, u.String()), cfg)
		b.released(b.take(e, request("rights", "app", long)))
	}
}

// fullTable: the server has no room for more locks. Requests fail without effect, and what is
// held stays.
func fullTable(b *bench) {
	e, other := b.engine("pgx", pglock.Config{}), b.engine("postgres", pglock.Config{})
	b.released(b.take(other, request("before", "other", long))) // it has its session
	first := b.take(e, request("full", "full", long))
	for n := 0; ; n++ {
		_, err := e.Acquire(b.Context(), request(fmt.Sprint("full ", n), "full", long))
		if err == nil {
			continue
		}
		if !isKind(err, driver.Unavailable) || !strings.Contains(err.Error(), "max_locks_per_transaction") {
			b.Errorf("request to a server that is full after %d locks: %v", n, err)
		}
		break
	}
	if err := first.renew(); err != nil {
		b.Errorf("renewal of what was held before: %v", err)
	}
	if err := e.Close(); err != nil {
		b.Error(err)
	}
	b.eventually("there is room again", func() bool {
		_, err := other.Acquire(b.Context(), request("after", "other", long))
		return err == nil
	})
}

// lostSequence: the sequence was dropped or set back, as by a backup that was restored. Who
// begins after that gets larger fences all the same.
func lostSequence(b *bench) {
	cfg := pglock.Config{Schema: "forgetful"}
	e := b.engine("pgx", cfg)
	h := b.take(e, request("name", "before", long))
	b.released(h)
	_ = e.Close()
	b.exec("SELECT setval('forgetful.fence', 1)")
	e = b.engine("postgres", cfg)
	next := b.take(e, request("name", "after", long))
	if next.grant.Fence <= h.claim.Fence {
		b.Errorf("fence %d after %d, when the sequence was set back", next.grant.Fence, h.claim.Fence)
	}
	b.released(next) // by itself: the server takes a moment to notice that a session has ended
	_ = e.Close()
	b.exec("DROP SEQUENCE forgetful.fence")
	last := b.take(b.engine("pgx", cfg), request("name", "after", long))
	if last.grant.Fence <= next.claim.Fence {
		b.Errorf("fence %d after %d, when the sequence was dropped", last.grant.Fence, next.claim.Fence)
	}
}

func wrongSequence(b *bench) {
	for _, options := range []string{"CACHE 10", "CYCLE", "INCREMENT BY -1", "MAXVALUE 9223372036854775807"} {
		b.exec("DROP SCHEMA IF EXISTS wrong CASCADE")
		b.exec("CREATE SCHEMA wrong")
		b.exec("CREATE SEQUENCE wrong.fence " + options)
		if _, err := pglock.New(b.Context(), b.admin, pglock.Config{Schema: "wrong"}); !isKind(err, driver.Invalid) {
			b.Errorf("a sequence with %s: %v", options, err)
		}
	}
}

func opensURL(b *bench) {
	hf, err := holdfast.Open(b.Context(), b.server.URL()+"&schema=url&connections=2&max-ttl=20s&heartbeat=100ms&timeout=20s&encoding=dotnet", holdfast.Config{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := hf.Mutex("url").Lock(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if n := b.number("SELECT count(*) FROM url.sessions"); n != 1 {
		b.Errorf("%d sessions in the schema of the URL", n)
	}
	if err := errors.Join(l.Unlock(), hf.Close()); err != nil {
		b.Error(err)
	}
}

// noServer: errors say what is wrong, and no password.
func noServer(b *bench) {
	for _, bad := range []string{
		"postgres://app:topsecret@127.0.0.1:1/app?sslmode=disable", "postgres://app:topsecret@127.0.0.1:1/app?sslmode=nonsense",
		"postgres://app:topsecret@127.0.0.1:x/app", "postgres://app:topsecret@127.0.0.1:1/app?connections=0x&encoding=rot13&max-ttl=1",
		"postgres:app:topsecret", "postgres://app:top%zzsecret@127.0.0.1/",
	} {
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		_, err := pglock.Open(ctx, bad, pglock.Config{})
		cancel()
		var d *driver.Error
		if !errors.As(err, &d) || d.Outcome != driver.NotApplied || strings.Contains(err.Error(), "secret") {
			b.Errorf("%s: %v", bad, err)
		}
	}
}

// foreignHolder: a lock of somebody else is shown, and not broken.
func foreignHolder(b *bench) {
	e := b.engine("pgx", pglock.Config{Schema: "dotnet", Encoding: pglock.DotNet})
	session, err := b.admin.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	if _, err := session.ExecContext(b.Context(), "SELECT pg_advisory_lock(77)"); err != nil {
		b.Fatal(err)
	}
	const name = "000000000000004d"
	info, err := e.Inspect(b.Context(), name)
	if err != nil || len(info.Holders) != 1 || !strings.Contains(info.Holders[0].Owner, "another client") {
		b.Errorf("Inspect: %+v, %v", info, err)
	}
	if _, err := e.Break(b.Context(), driver.BreakRequest{Name: name}); !isKind(err, driver.Unsupported) || !strings.Contains(err.Error(), "pg_terminate_backend") {
		b.Errorf("Break: %v", err)
	}
	var ok bool
	if err := session.QueryRowContext(b.Context(), "SELECT pg_advisory_unlock(77)").Scan(&ok); err != nil || !ok {
		b.Errorf("the other client lost its lock (%v)", err)
	}
}

// smallPool: a pool that leaves nothing for others is refused.
func smallPool(b *bench) {
	db := pool(b.T, "pgx", b.server.URL())
	db.SetMaxOpenConns(4)
	if _, err := pglock.New(b.Context(), db, pglock.Config{}); !isKind(err, driver.Invalid) || !strings.Contains(err.Error(), "SetMaxOpenConns") {
		b.Errorf("a small pool: %v", err)
	}
}

func diagnose(b *bench) {
	for _, through := range drivers {
		e := b.engine(through, pglock.Config{Connections: 1})
		h := b.take(e, request("diagnosed", "diagnose", long))
		d, err := e.Diagnose(b.Context(), long)
		if err != nil {
			b.Fatal(err)
		}
		said := map[string]driver.Level{}
		for _, f := range d.Findings {
			said[f.Subject] = f.Level
		}
		for subject, level := range map[string]driver.Level{
			"lease": driver.LevelOK, "waiting": driver.LevelNote, "locks": driver.LevelOK, "fences": driver.LevelNote, "safety": driver.LevelNote,
		} {
			if got, there := said[subject]; !there || got != level {
				b.Errorf("%s is %v (%t), want %v: %+v", subject, got, there, level, d)
			}
		}
		b.released(h)
	}
}
