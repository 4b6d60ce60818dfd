// Package mysqllock is the engine on MySQL 5.7 and later, and on MariaDB 10.0.2 and later: locks
// in the database that a program has open already.
//
// [New] makes an engine on the *sql.DB of the program, [Open] one with a DB of its own.
// Importing the package makes the scheme mysql known to holdfast.Open. The package needs the
// standard library only; the driver, github.com/go-sql-driver/mysql, is the caller's to import.
//
// # What a lock is
//
// An exclusive lock is a GET_LOCK of the server, held by a session, that is by one connection.
// All locks of a process live in one shared session; what somebody waited for lives in the
// session that waited. The same statement that takes the locks, of up to 32 names at once, draws
// their fences, from a counter in the server's memory that an InnoDB row keeps in order over its
// restarts. Every client that uses
// GET_LOCK with the same name excludes, and is excluded by, ours: see [Config.Prefix].
//
// A permit of a semaphore is a row of the table that says what it weighs, and a GET_LOCK of a
// name of its own that proves that its holder lives. Only clients of holdfast see permits.
//
// # The lease
//
// The engine itself gives back what was not renewed for its TTL. Behind that stands the server:
// each session has the longest TTL of its locks, in whole seconds, as wait_timeout, and a
// renewal is a statement in it. A process that hangs, or was cut off, loses its session, and with
// it all its locks, when the server has heard nothing for that long. A session that is gone is
// never connected again for what it held: those locks are lost, and their renewals say so.
//
// # What it does not do
//
// Locks live in one server process: they end with it, and are unknown to its replicas and to
// the other nodes of a cluster, see [Config.SingleNode]. There are no shared locks: GET_LOCK has
// none. Waiting is not first in, first out. Loss is noticed at the next statement of the
// session, the renewal at the latest: drivers do not tell of a connection that has ended.
// It cannot stop a holder that was paused past the end of its lease: only a resource that checks
// [driver.Grant.Fence] can.
package mysqllock
