package main

import (
	"os/exec"
	"runtime"
	"sync"
)

// spawner runs functions on one thread that lasts as long as this process: children die with
// the thread that started them, and get the processors that it has.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// spawn starts cmd, on these processors only unless there are none.
func spawn(cmd *exec.Cmd, processors []int) error {
	dieWithParent(cmd)
	started := make(chan error)
	spawner() <- func() { started <- startOn(cmd, processors) }
	return <-started
}
