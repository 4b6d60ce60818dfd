package interoptest

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain has more tests run at once than there are processors, as they mostly wait, and
// looks whether they have left goroutines.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+1; { // one that starts servers
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			fmt.Printf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
			code = 1
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	os.Exit(code)
}
