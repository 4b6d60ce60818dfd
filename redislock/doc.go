// Package redislock is the engine on Redis 6.2 and later, and on Valkey: on a server of its own,
// behind Sentinel, and on a Cluster.
//
// [New] makes an engine on the go-redis client that a program has open already, [Open] one with
// a client of its own. Importing the package makes redis, rediss, redis+sentinel,
// rediss+sentinel, redis+cluster and rediss+cluster known to holdfast.Open.
//
// An exclusive lock is what most libraries make of one: a string under the name's key, with a
// time to live. Their clients and this one exclude each other where the keys are the same, see
// [Config.Prefix]. Every change is one script, so taking a free lock and giving one back are a
// round trip each, and requests that a process makes at the same time travel together.
//
// # Waiting
//
// Who finds a lock held enters its queue. The script that frees the lock grants it to the first
// in the queue and tells that process. Every waiter also looks after its place
// about once a second, and when the holder's time is over: so do lost messages, holders that
// died, and libraries that tell nobody of a release cost a second at most, or the rest of the
// holder's TTL. A waiter that was not heard of for 3 seconds loses its place.
//
// # What a lock is worth
//
// That depends on the [Safety] level, which [Engine.Safety] tells. [SingleProcess] rests on one
// server process that keeps its data. With [CrashSafe] and [PartitionSafe] a master that has
// just started or taken over grants nothing new until every lease from before must have ended,
// and lets holders keep what they hold; so a failover does not make two holders. They rest on
// these assumptions:
//
//   - the clocks of clients and servers run at rates within 1 % of each other, and no server's
//     clock steps forward within a lease or a grace;
//   - MaxTTL, MaxLag, DataNodes and Safety are the same for all clients of the deployment, and
//     DataNodes counts all data nodes;
//   - a replica is never attached again to a master that was superseded and not demoted;
//   - nothing is evicted or flushed, and no client of another library takes part: those know of
//     no grace.
//
// # Quorum
//
// A [Quorum] takes exclusive locks on a majority of independent servers, so that a minority of
// them may fail and nothing has to fail over. [NewQuorum] makes one on clients that are open
// already, [OpenQuorum] with clients of its own, and holdfast.Open for redlock and redlocks.
//
// # What it does not do
//
// It cannot stop a holder that was paused past the end of its lease: only a resource that checks
// [driver.Grant.Fence] can. Fences come from a counter on the server and the callers' clocks in
// µs, whichever is ahead: their order survives lost data only while clocks are sane. It
// refuses a Ring. Clients of other libraries do
// not queue, and may take a lock that has just become free before those who wait.
package redislock
