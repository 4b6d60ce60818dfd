// Package pglock is the engine on PostgreSQL: advisory locks of sessions in the database that
// a program has open already, through database/sql.
//
// [New] makes an engine on a *sql.DB of pgx (its stdlib) or lib/pq, [Open] one with a pool of its
// own. Importing the package makes postgres and postgresql known to holdfast.Open. [InTx] takes a
// lock that lives with a transaction of the caller.
//
// # How it locks
//
// All locks of a process live in one session of the server, on a connection that the engine
// takes out of the pool. Requests that are made at the same time travel in one statement, and
// taking a free lock and giving one back are a round trip each. The fence is taken from a
// sequence in the same statement, after the lock.
//
// A request for a lock that is held waits in the server's queue, in a session of its own,
// which then holds what it was granted until that is released. There are no more sessions
// than [Config.Connections]; further waiters look again every so often.
//
// # What a lock is worth
//
// A lock lives as long as its session. The engine gives back what is not renewed for its TTL,
// and the server (PostgreSQL 14 and later) ends a session that was silent for the longest TTL
// among its locks: so a holder that died, was frozen or is cut off loses them in that time.
// When the session ends before, because an administrator or the server's end or a failover
// ended it, its locks are free at once, and the holder is told at its next renewal. In between
// there may be two: only a resource that checks fences is safe from that. A lock whose session
// has ended is never taken back.
package pglock
