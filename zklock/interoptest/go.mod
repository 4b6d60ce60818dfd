module github.com/holdfast-go/holdfast/zklock/interoptest

go 1.26.0

require (
	github.com/holdfast-go/holdfast v0.0.0
	github.com/holdfast-go/holdfast/zklock v0.0.0
)

require (
	github.com/go-zookeeper/zk v1.0.4 // indirect
	golang.org/x/sys v0.42.0 // indirect
)

replace (
	github.com/holdfast-go/holdfast => ../..
	github.com/holdfast-go/holdfast/zklock => ..
)
