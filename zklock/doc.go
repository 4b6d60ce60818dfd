// Package zklock is the engine on ZooKeeper.
//
// It keeps locks in the nodes of Apache Curator's recipes, so that Java services and holdfast
// exclude each other: an Exclusive share is a node of InterProcessMutex (or a write lock of
// InterProcessReadWriteLock, see [Recipe]), a Shared one a read lock, a permit a lease of
// InterProcessSemaphoreV2. Importing the package makes zk:// and zks:// URLs, the latter
// with TLS, known to holdfast.Open.
//
// # Nodes
//
// With n the name, percent-encoded to one element of a path:
//
//	Root/n/_c_UUID-lock-0000000007             a lock, or who waits for one
//	Root/n/_c_UUID-__WRIT__0000000008          the same with ReadWrite
//	Root/n/_c_UUID-__READ__0000000009          a reader
//	Root/n/leases/_c_UUID-lease-0000000003     a permit
//	Root/n/locks/_c_UUID-lock-0000000001       who waits for permits
//	Root/%values/n                             a value, with a guard below it
//
// The nodes of requests are ephemeral and sequential, those above them containers. A lock is
// held by the first in its queue. In the node is the owner's label, as JSON.
//
// # Sessions
//
// An engine has one session, and what it holds ends with it. A connection that is lost is
// replaced by one to another server, and nothing else happens if that is in time: the session
// goes on. While the engine lives it deletes by itself the nodes of shares that were not
// renewed; when the process is gone the servers do so at the end of the session, up to
// Config.SessionTimeout later. See docs/zklock.md.
//
// # Values
//
// What the types beside locks store is a persistent node each, whose version is the transaction
// of its last write. When a value ends goes by the wall clocks of those who read and write:
// machines whose clocks differ see that much of a TTL, or of a window of a counter or limiter,
// more or less. Versions and fences do not depend on clocks.
package zklock
