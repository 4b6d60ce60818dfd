module github.com/holdfast-go/holdfast/bench

go 1.26.0

require github.com/holdfast-go/holdfast v0.0.0

require (
	golang.org/x/sync v0.19.0
	golang.org/x/sys v0.42.0 // indirect
)

replace github.com/holdfast-go/holdfast => ..
