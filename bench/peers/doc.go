// Command peers measures holdfast on Redis beside other lock libraries, in one run: redsync,
// bsm/redislock and rueidislock at their defaults and at their best settings, and the bare
// commands over the same clients. See docs/benchmarks.md for how to run and read it.
//
// It starts a redis-server of its own. Every cell of a table runs in processes of its own,
// which are this program again, with the environment variable HOLDFAST_PEERS_WORKER set. The
// adapters take turns within each round, so that a change of the machine's mood hits all of
// them; ratios are taken within a round, and the median over the rounds is printed.
package main
