package zklock_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
)

// frozenURL makes the test binary the process that testFrozen freezes.
const frozenURL = "HOLDFAST_ZK_FROZEN_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(frozenURL); url != "" {
		os.Exit(holdAndTell(url))
	}
	// Tests mostly wait for sessions to end, so many go together, however few the processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	for end := time.Now().Add(patience); code == 0 && runtime.NumGoroutine() > before+1; { // one starts servers
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			fmt.Printf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
			code = 1
		}
		time.Sleep(5 * time.Millisecond)
	}
	os.Exit(code)
}

// holdAndTell takes a lock, says so, and says when it was told that it is lost.
func holdAndTell(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hf, err := holdfast.Open(ctx, url, holdfast.Config{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	lease, err := hf.Mutex("n").Lock(ctx)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held", lease.Fence())
	<-lease.Context().Done()
	if !errors.Is(context.Cause(lease.Context()), holdfast.ErrLost) {
		fmt.Println(context.Cause(lease.Context()))
		return 1
	}
	fmt.Println("told")
	return 0
}
