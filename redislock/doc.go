// Package redislock grants locks on Redis 6.2 and later, and on Valkey: on a server of its
// own, behind Sentinel, and on a Cluster.
package redislock
