// Package fence is the check at the resource: what refuses the write of a holder whose lock
// has gone to somebody else, however late it wakes up.
//
// A lock with a lease cannot do that. Its holder may be paused (by the garbage collector, the
// scheduler, a suspended machine) between its last look at the lease and its write, and the
// lock be granted to the next one meanwhile. But every lease has a fence, a number that grows
// with each grant of the lock's name. A resource that remembers the largest fence it was shown
// can tell the late holder from the present one, without a clock.
//
// # Open before the first read, Check with every write
//
// All guards work the same way:
//
//   - Open registers the holder's fence at the resource, and fails if a larger one is there.
//     The holder calls it once it has the lock and before its first read.
//   - Check, which comes with every write as one atomic step, demands that the registered fence
//     is the holder's own. It fails when a larger one was registered since, and also when
//     Open was forgotten, was rolled back, or the resource has lost what was registered.
//
// Both fail with an error that matches [holdfast.ErrStale]; a [*StaleError] in it has the
// numbers. Nothing was written then, and what was read is not to be relied on: let go of the
// lock, and start over under a new lease.
//
// To check the writes alone is not enough. Let A hold fence 33 and be paused, and B get the
// lock with 34: B reads; A wakes up and writes, and as nobody has shown a larger number yet, it
// may; B writes what it made of its reading, over A's. Each write came with the largest number so
// far, and A's is lost. So B has to show its number before it reads, and Check refuses who did
// not. Someone who writes without having read calls Open with the write.
//
// # The guards
//
//   - [SQL]: a table in the database that the lock protects; PostgreSQL, MySQL and MariaDB, SQLite.
//   - [Redis]: a key beside each protected key; guarded SET, and a prelude for scripts.
//   - [File]: a guarded file, with the fences in a file beside it.
//   - [HTTP] and [Transport]: headers, for resources behind a web server.
//
// # What fences do not do
//
//   - They order holders. They do not make several writes of one holder atomic: a newer holder
//     can come between any two that are not in one transaction.
//   - They are comparable among leases of one name on one engine, and of exclusive locks:
//     Mutex, RWMutex.Lock. Readers and permits that are held side by side have numbers in no
//     particular order, so a guard would refuse some of them.
//   - They are no credentials. Whoever may write to the resource may show any number, and a
//     number that is too large shuts everybody out. See [HTTP] for remote holders.
package fence
