// Package interoptest has tests only: locks of Apache Curator and kazoo, with their real
// clients, on the nodes of zklock.
package interoptest
