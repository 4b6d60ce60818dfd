// Package interoptest shows that redislock and other libraries' locks exclude each other on
// the same keys: redis-py for Python, redlock and redis-semaphore for Node.js, redsync and
// bsm/redislock for Go, and, by the commands that they send, RedLock.net and
// StackExchange.Redis for .NET. It holds tests only, in a module of its own, so that nobody
// inherits those libraries.
//
// peer.py and peer.js are small programs around the foreign clients that take commands on
// their input, so that one process can hold a lock while a test acts. scripts/install brings
// what they need.
package interoptest
