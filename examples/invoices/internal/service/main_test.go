package service_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// A service that has ended leaves no goroutine behind, and so no connection and no lock.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			text := make([]byte, 1<<20)
			fmt.Printf("goroutines are left:\n%s\n", text[:runtime.Stack(text, true)])
			code = 1
			break
		}
	}
	os.Exit(code)
}
