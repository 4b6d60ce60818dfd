package pglock

import (
	"context"
	sqldriver "database/sql/driver"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// exam is one call of Diagnose.
type exam struct {
	driver.Diagnosis
	e *Engine
}

// surveyText is what Diagnose asks for.
const surveyText = `SELECT current_setting('server_version'), current_setting('max_connections')::int,
	current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int),
	(SELECT count(*) FROM pg_locks), (SELECT count(*) FROM pg_stat_activity),
	current_setting('fsync') = 'on', current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
	(SELECT count(*) FROM pg_stat_replication), ` + serverMicros + `, (SELECT last_value FROM SCHEMA.fence)`

// Diagnose implements driver.Diagnoser. It takes no lock and writes nothing but heartbeats.
func (e *Engine) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	if err := e.enterCall(ctx); err != nil {
		return driver.Diagnosis{}, err
	}
	defer e.leave()
	sent := time.Now()
	rows, err := e.ask(ctx, surveyText)
	if err == nil && len(rows) != 1 {
		err = &driver.Error{Kind: driver.Unavailable, Err: errGarbled}
	}
	if err != nil {
		return driver.Diagnosis{}, err
	}
	travel := time.Since(sent)
	x := &exam{e: e}
	x.lease(text(rows[0][0]), ttl)
	x.room(rows[0])
	x.fences(rows[0], sent.Add(travel/2), travel)
	x.latency(ctx)
	x.Find(driver.LevelNote, "safety", "check fences at what the lock protects", "%s", e.caps.Safety)
	return x.Diagnosis, nil
}

// lease reports who ends the locks of a holder that is silent.
func (x *exam) lease(version string, ttl time.Duration) {
	x.Fact("server", "PostgreSQL %s", version)
	x.Fact("connections", "%d at most, of which one takes locks", x.e.cfg.Connections)
	if !x.e.server.idle {
		x.Find(driver.LevelWarning, "lease", "use PostgreSQL 14 or later",
			"the server does not end silent sessions: a holder that is frozen keeps its locks until it goes on, and one that is cut off until the server's keepalives find out, about 20 s")
		return
	}
	x.Find(driver.LevelOK, "lease", "", "the server ends the session of a holder that was silent for %v, or for the longest TTL among its locks", ttl)
	if x.e.cfg.Connections == 1 {
		x.Find(driver.LevelNote, "waiting", "raise Config.Connections (connections in the URL)", "with one connection waiters look again every so often instead of being woken")
	}
}

// room reports how much there is of what locks take.
func (x *exam) room(row []sqldriver.Value) {
	connections, _ := number(row[1])
	locks, _ := number(row[2])
	held, _ := number(row[3])
	open, _ := number(row[4])
	x.Fact("locks", "%d of about %d that the server has room for", held, locks)
	x.Fact("sessions", "%d of %d", open, connections)
	if held > locks/2 {
		x.Find(driver.LevelWarning, "locks", "raise max_locks_per_transaction", "the server's table of locks is more than half full: requests fail when it is full")
	} else {
		x.Find(driver.LevelOK, "locks", "", "the server has room for about %d more", locks-held)
	}
	if open > connections*9/10 {
		x.Find(driver.LevelWarning, "sessions", "raise max_connections, or lower what clients take", "%d of %d sessions are taken: an engine that begins may find none", open, connections)
	}
}

// fences reports what the order of fences rests on.
func (x *exam) fences(row []sqldriver.Value, here time.Time, travel time.Duration) {
	fsync, _ := number(row[5])
	standbys, _ := number(row[8])
	micros, _ := number(row[9])
	last, _ := number(row[10])
	ahead := here.Sub(time.UnixMicro(micros))
	x.Fact("clock", "this machine's is %v ahead of the server's, give or take %v", ahead.Round(time.Millisecond), (travel / 2).Round(time.Microsecond))
	x.Fact("fences", "%d, %d numbers for each grant", last, x.e.server.span)
	switch {
	case last > micros+int64(time.Hour/time.Microsecond):
		x.Find(driver.LevelNote, "fences", "", "they are ahead of the server's clock: if the sequence is set back, by a failover or a restored backup, they may repeat")
	case fsync != 1 || text(row[6]) == "off":
		x.Find(driver.LevelNote, "fences", "set fsync and synchronous_commit to on", "a crash of the server may set the sequence back; it then goes on from the server's clock")
	case standbys > 0 && text(row[7]) == "":
		x.Find(driver.LevelNote, "fences", "name a standby in synchronous_standby_names",
			"%d standbys follow, none in step: after a failover the sequence goes on from the new server's clock, and locks of the old one may still be believed in for up to a renewal", standbys)
	default:
		x.Find(driver.LevelOK, "fences", "", "they survive a crash of the server")
	}
}

// samples is how many statements the latency is the median of.
const samples = 9

// latency times statements one after the other.
func (x *exam) latency(ctx context.Context) {
	times := make([]time.Duration, samples)
	for i := range times {
		began := time.Now()
		if _, err := x.e.ask(ctx, "SELECT 1"); err != nil {
			return // what is wrong shows elsewhere
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	x.Fact("latency", "%v, the median of %d", times[samples/2].Round(10*time.Microsecond), samples)
}
