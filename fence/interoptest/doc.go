// Package interoptest shows that package fence keeps late holders out of real resources:
// PostgreSQL through pgx, MariaDB, SQLite, Redis, a web server and files. It holds tests only, in a
// module of its own, so that nobody inherits the drivers.
//
// The holder is a process of its own that is frozen past its TTL, with a lock of redislock.
package interoptest
