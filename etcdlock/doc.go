// Package etcdlock is the engine on etcd 3.4 and later: one member or a cluster.
//
// [New] makes an engine on the client that a program has open already, [Open] one with a client
// of its own. Importing the package makes etcd and etcds known to holdfast.Open.
//
// The keys are laid out as in etcd's own concurrency package. A Mutex of that package, etcdctl
// lock and the lock service exclude the locks of the same name of this one, and are excluded by
// them; see [Config.Prefix]. Readers, upgradeable readers and permits are recipes of holdfast's
// own on the same keys: to other clients each is one more that has to go before they get the
// lock, so they are safe beside them, and each of the others' keys is exclusive to them.
//
// Taking a free lock and giving one back are a round trip each. What a process asks for at the
// same time travels together. Its locks with one TTL hang on one lease, and are renewed at once.
//
// # Waiting
//
// Who finds a lock held leaves a key, and watches the one key that has to go before its own. A
// release wakes that request alone. When it is woken it writes its key once more, and only the
// answer to that makes it the holder: a request whose key or lease has gone while it waited is
// not granted. Every request that waits also looks by itself once in a while, at least every five
// seconds, so a watch that ends or falls silent costs no more than that.
//
// # What a lock is worth
//
// A lock is exclusive as long as a majority of the cluster keeps its data, and the clocks of
// holders and members run at rates within 1 % of each other. Crashes, restarts, elections and
// partitions do not make two holders. A holder that is cut off from the majority is told before
// anybody else can get its lock, by its own clock, whatever the client library says: nothing
// here rests on that to notice a session's end.
//
// # Values
//
// What the types beside locks store is one key each, whose version is its revision and whose
// writes are conditional on it. When a value ends goes by the wall clocks of those who read and
// write, for etcd tells nobody the time: machines whose clocks differ see that much of a TTL, or
// of a window of a counter or limiter, more or less. Versions and fences do not depend on clocks.
//
// # What it does not do
//
// It cannot stop a holder that was paused past the end of its lease: only a resource that checks
// [driver.Grant.Fence] can, or for data in etcd itself [Engine.Guard]. The order of fences is lost
// when the cluster is restored from a snapshot without --bump-revision. A holder that has died
// keeps its lock for its TTL, a tenth of it or a second more, and what etcd takes to notice:
// about a second, and after an election once more the whole time.
package etcdlock
