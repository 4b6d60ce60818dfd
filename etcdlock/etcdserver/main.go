// Command etcdserver is etcd's own server, of the version in go.mod: what the tests start beside
// the older one that Debian has. scripts/install builds it, apart from the workspace, because
// that takes minutes.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
