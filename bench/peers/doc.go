// Command peers measures holdfast beside other lock libraries on the same server, in one run,
// at their defaults and at their best settings, and beside the bare commands over the same
// clients. -server says on which: redis (redsync, bsm/redislock, rueidislock), postgres, mariadb,
// etcd, zookeeper, or redlock, which is five redis-servers. See docs/benchmarks.md for how to
// run and read it.
//
// It starts servers of its own. A product has a file of its name, with its servers, adapters,
// patterns and targets; on Redis the adapters have files by library. Every cell of a table runs in processes of its own,
// which are this program again, with the environment variable HOLDFAST_PEERS_WORKER set. The
// adapters take turns within each round, so that a change of the machine's mood hits all of
// them; ratios are taken within a round, and the median over the rounds is printed.
package main
