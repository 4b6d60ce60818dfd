// Package model searches the protocol of redislock for a way to two holders: all the states
// that a few servers and clients can get into, in any order of events, breadth-first.
//
//   - explore.go is the search. It knows nothing of locks.
//   - failover.go is the world of a master, its replicas and its clients, of failovers,
//     restarts and partitions; queue.go that of one server, its queue and its pushes.
//   - scripts.go, single.go and shares.go are the rules of the server side: the scripts of
//     redislock/lua, carried over to Go. A test in redislock runs long random sequences through both, on a
//     real server, and compares every word and every key. The rules of the client side are
//     the functions of internal/protocol, which the engine itself runs.
//   - quorum.go and quorum_serve.go are the world of a quorum: nodes that know nothing of each
//     other, attempts to get a majority of them, healers of nodes that forgot. quorum_node.go
//     and quorum_heal.go are what the scripts do on one of these nodes.
//   - flaws.go and quorum_flaws.go are bugs to plant. The search has to find each, or it
//     proves nothing where it finds none.
//
// A complete search is a proof for its small world: so many nodes, clients, promotions. That
// nothing new comes with more of them is a conjecture, see docs/guarantees.md.
package model
