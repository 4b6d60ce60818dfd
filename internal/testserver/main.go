package testserver

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// Main runs the tests of a package, for its TestMain, and returns the code to exit with. That is
// not 0 either where they have left goroutines, or processes that nobody has waited for.
func Main(m *testing.M) int {
	spawner() // stays
	before := runtime.NumGoroutine()
	code := m.Run()
	if code != 0 { // what is left is left by that
		return code
	}
	if err := childLeft(); err != nil {
		fmt.Println(err)
		return 1
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			fmt.Printf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
			return 1
		}
	}
	return code
}
