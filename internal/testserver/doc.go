// Package testserver starts real servers for tests, from programs that are installed, and
// breaks them and the network before them.
//
// # What it starts
//
//   - [Redis]: one redis-server, with passwords, users, TLS, a log on disk, a master to follow, or
//     a clock of its own.
//   - [Sentinel]: a master, replicas and sentinels.
//   - [Cluster]: a Redis Cluster, with or without replicas.
//   - [Postgres]: one PostgreSQL server, and [PgBouncer], a pooler before it.
//   - [MariaDB]: one mariadbd.
//   - [ZooKeeper] and [ZooKeepers]: one ZooKeeper server, and an ensemble.
//   - [Run]: any program, to be frozen and killed like them.
//   - [Proxy]: a network between clients and any server, to be frozen, cut or made to lose
//     replies.
//
// Each start waits until the server works, and no longer. Servers listen on the loopback, on
// ports that they find, and have everything that they write in a folder of the test. A program
// that is missing skips the test, or fails it where HOLDFAST_REQUIRE is set: see [Need].
//
// HOLDFAST_REDIS_SERVER names another program to start in place of redis-server: valkey-server,
// or the path of another version. Redis 7.0 and Valkey 8.0 are the oldest that will do.
//
// A program that is no test has these functions use a [Lab]. [Main] looks whether the tests of a
// package have left anything.
//
// # What it leaves
//
// Nothing. At the end of the test servers are killed, frozen or not, and waited for; proxies
// have closed their connections and ended their goroutines. On Linux servers also die with the
// test binary, however that ends. One goroutine stays, which starts servers: on Linux a child
// dies with the thread that started it, so that has to last. The log of a server is part of
// the output of a test that failed.
//
// # How to use it
//
// Nothing here is for fake time: no bubble of testing/synctest around it. Functions and methods
// that cannot do what they say end the test as t.Fatal does. Those that wait do so for a
// condition, for up to 20 seconds; they are slow only on a slow machine.
//
// What a test does through Do and Dial happens as a user of this package, who may do everything
// whatever password or rules the test sets for others.
package testserver
