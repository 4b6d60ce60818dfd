//go:build unix

package testserver_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// TestMain looks whether the tests together have left something.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		fmt.Println("a server is left, or nobody has asked how it ended:", err)
		code = 1
	}
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before+1 { // one that starts servers
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
