package interoptest

import (
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

// poolers: a proxy that moves connections between sessions is refused with the reason,
// however many sessions it has; one that does not is as good as the server.
func poolers(b *bench) {
	t := b.T
	for _, sessions := range []int{1, 2, 20} {
		addr := testserver.PgBouncer(t, b.server, "transaction", sessions)
		for _, through := range drivers {
			e, err := pglock.New(t.Context(), pool(t, through, b.server.URLVia(addr)), pglock.Config{Timeout: 10 * time.Second})
			if err == nil {
				_ = e.Close()
			}
			if !isKind(err, driver.Unsupported) || !strings.Contains(err.Error(), "pool_mode") {
				t.Errorf("transaction pooling over %d sessions, through %s: %v", sessions, through, err)
			}
		}
	}
	addr := testserver.PgBouncer(t, b.server, "session", 20)
	for _, through := range drivers {
		e := engine(t, pool(t, through, b.server.URLVia(addr)), pglock.Config{})
		other := b.engine("pgx", pglock.Config{})
		h := b.take(e, request("pooled", through, long))
		w := b.wait(other, request("pooled", "other", long))
		if err := h.renew(); err != nil {
			t.Errorf("renewal through a pooler: %v", err)
		}
		b.released(h)
		b.released(w.granted())
	}
}

// astray: where a pooler was not seen through at first, with a budget of one connection,
// the first statement that goes astray ends the session, and nothing is believed to be locked.
func astray(b *bench) {
	t := b.T
	addr := testserver.PgBouncer(t, b.server, "transaction", 5)
	db := pool(t, "pgx", b.server.URLVia(addr))
	e, err := pglock.New(t.Context(), db, pglock.Config{Connections: 1})
	if err != nil {
		return // it was seen through all the same
	}
	defer e.Close()
	b.take(e, request("before", "astray", long))
	var busy []*sql.Tx // until the engine's session serves one of them
	for i := range 4 {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, tx)
		if _, err := tx.Exec("SELECT 1"); err != nil {
			t.Fatal(err)
		}
		_, err = e.Acquire(t.Context(), request(fmt.Sprint("astray ", i), "astray", long))
		if err == nil {
			continue
		}
		for range 2 {
			if !strings.Contains(err.Error(), "pool_mode") {
				t.Errorf("request %d, which went astray: %v", i, err)
			}
			_, err = e.Acquire(t.Context(), request("afterwards", "astray", long))
		}
		for _, tx := range busy {
			_ = tx.Rollback()
		}
		return
	}
	t.Error("no request went astray")
}

// swapped: what takes and gives back a lock does nothing in another session than the one that it is
// meant for, where a pooler may have it carried out that knows prepared statements.
func swapped(b *bench) {
	const owner, key = "swapped", 42
	e, _ := b.behindProxy("pgx", owner)
	ctx := b.Context()
	other, err := b.admin.Conn(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer other.Close()
	last := func(function string) (text string) { // of the statements of the engine
		b.eventually("the statement is seen", func() bool {
			err := other.QueryRowContext(ctx, "SELECT query FROM pg_stat_activity WHERE application_name = 'holdfast ' || $1", owner).Scan(&text)
			return err == nil && strings.Contains(text, function+"($1)")
		})
		return text
	}
	held := func() (n int) {
		if err := other.QueryRowContext(ctx, "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'").Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	answers := func(text string) (n int64) {
		if err := other.QueryRowContext(ctx, text, key).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	h := b.take(e, request(owner, owner, long))
	if n := answers(last("pg_try_advisory_lock")); n != -1 || held() != 0 {
		b.Errorf("another session answers %d to a request for a lock, and has %d", n, held())
	}
	b.released(h)
	if _, err := other.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
		b.Fatal(err)
	}
	if n := answers(last("pg_advisory_unlock")); n != -1 || held() != 1 {
		b.Errorf("another session answers %d to a release, and has %d", n, held())
	}
}
