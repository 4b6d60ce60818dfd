// Package interoptest tests pglock on a real PostgreSQL server, through pgx and lib/pq. It
// holds tests only, in a module of its own, so that nobody inherits those drivers.
package interoptest
